// What the library's processor means to an operator: where tensors must lie, how a kernel is
// called.
#pragma once
#include <memory>

#include "tensors.h"

// The emulation (tests/emulation) runs CUDA's kernels on the CPU's tensors.
#if defined(LIEROPE_CUDA) && !defined(LIEROPE_EMULATED)
#define LIEROPE_DISPATCH_KEY CUDA
#else
#define LIEROPE_DISPATCH_KEY CPU
#endif

namespace lierope {

// Checks that t lies on the library's processor.
void check_device(const char* op, const char* argument, const Tensor& t);
// Checks that t lies where `like`, the argument `other`, does.
void check_device(const char* op, const char* argument, const Tensor& t, const char* other,
                  const Tensor& like);

#if defined(LIEROPE_CUDA)

// Makes a tensor's device the current one and knows its stream; holds the workspace of one call.
class Device {
 public:
  explicit Device(const Tensor& like);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  const cuda::Launch& launch() const { return launch_; }
  void make_workspace(int64_t bytes);
  // Raises what a launch left behind. Does not wait for the kernels.
  void check_launched() const;

 private:
  struct Held;
  std::unique_ptr<Held> held_;
  cuda::Launch launch_;
};

#endif

// Calls a kernel of the table on the processor, or the device, of `like`.
template <class Params>
void run(Kernel<Params> Kernels::* kernel, const Params& params,
         [[maybe_unused]] const Tensor& like) {
#if defined(LIEROPE_CUDA)
  const Kernel<Params>& of_table = kernels().*kernel;
  Device device(like);
  if (of_table.workspace != nullptr)
    device.make_workspace(of_table.workspace(params, device.launch()));
  of_table.launch(params, device.launch());
  device.check_launched();
#else
  (kernels().*kernel)(params);
#endif
}

}  // namespace lierope
