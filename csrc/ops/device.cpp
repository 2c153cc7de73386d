// Where tensors must lie, and what a call takes from its CUDA device: guard, stream, workspace.
#include "device.h"

#if defined(LIEROPE_EMULATED)
#include <cstdlib>
#include <cstring>
#include <new>
#elif defined(LIEROPE_CUDA)
#include <cuda_runtime_api.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>

#include <array>
#include <mutex>
#include <optional>
#endif

namespace lierope {

static std::string device_of(const Tensor& t) {
  if (t.is_cpu()) return "cpu";
  if (t.is_cuda()) return "cuda:" + std::to_string(t.get_device_index());
  return "another device";
}

void check_device(const char* op, const char* argument, const Tensor& t) {
#if defined(LIEROPE_CUDA) && !defined(LIEROPE_EMULATED)
  LIEROPE_CHECK(t.is_cuda(), op, ": ", argument,
                " must be on the GPU like the other arguments, got ", device_of(t));
#else
  LIEROPE_CHECK(t.is_cpu(), op, ": ", argument,
                " must be on the CPU like the other arguments, got ", device_of(t));
#endif
}

void check_device(const char* op, const char* argument, const Tensor& t, const char* other,
                  const Tensor& like) {
  check_device(op, other, like);
#if defined(LIEROPE_CUDA) && !defined(LIEROPE_EMULATED)
  const bool same = t.is_cuda() && t.get_device_index() == like.get_device_index();
#else
  const bool same = t.is_cpu();
#endif
  LIEROPE_CHECK(same, op, ": ", argument, " must be on the device of ", other, ", ",
                device_of(like), ", got ", device_of(t));
}

#if defined(LIEROPE_EMULATED)

// A workspace of the very size asked for, so that AddressSanitizer sees its end, full of NaN.
struct Device::Held {
  static constexpr std::align_val_t kAlign{256};
  void* workspace = nullptr;
  ~Held() { ::operator delete(workspace, kAlign); }
};

// LIEROPE_EMULATION_ARCHITECTURE: the processor that is emulated, 80, 90 (the default) or 100.
Device::Device(const Tensor&) : held_(new Held), launch_{nullptr, nullptr, 4, 227 << 10, 90} {
  const char* architecture = std::getenv("LIEROPE_EMULATION_ARCHITECTURE");
  if (architecture == nullptr || *architecture == '\0') return;
  launch_.architecture = std::atoi(architecture);
  if (launch_.architecture == 80) launch_.shared_bytes = 163 << 10;
}

void Device::make_workspace(int64_t bytes) {
  if (bytes == 0) return;
  held_->workspace = ::operator new(size_t(bytes), Held::kAlign);
  std::memset(held_->workspace, 0xff, size_t(bytes));
  launch_.workspace = held_->workspace;
}

void Device::check_launched() const {}
Device::~Device() = default;

#elif defined(LIEROPE_CUDA)

static void check_cuda(cudaError_t error) {
  LIEROPE_CHECK(error == cudaSuccess, "lierope: CUDA error: ", cudaGetErrorString(error));
}

// Attributes of the current device; asked for once.
static cuda::Launch properties(int device) {
  static std::mutex mutex;
  static std::array<std::optional<cuda::Launch>, 128> known;
  const std::lock_guard<std::mutex> lock(mutex);
  std::optional<cuda::Launch>& launch = known.at(size_t(device));
  if (!launch) {
    int major = 0, minor = 0;
    cuda::Launch found{};
    check_cuda(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
    check_cuda(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device));
    check_cuda(
        cudaDeviceGetAttribute(&found.multiprocessors, cudaDevAttrMultiProcessorCount, device));
    check_cuda(cudaDeviceGetAttribute(&found.shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin,
                                      device));
    found.architecture = 10 * major + minor;
    launch = found;
  }
  return *launch;
}

struct Device::Held {
  const Tensor& like;
  torch::stable::accelerator::DeviceGuard guard;
  std::optional<Tensor> workspace;
};

Device::Device(const Tensor& like)
    : held_(new Held{like, torch::stable::accelerator::DeviceGuard(like.get_device_index()), {}}),
      launch_(properties(like.get_device_index())) {
  TORCH_ERROR_CODE_CHECK(
      aoti_torch_get_current_cuda_stream(like.get_device_index(), &launch_.stream));
}

// torch's allocator aligns to 512 bytes and keeps the memory for this stream's next call.
void Device::make_workspace(int64_t bytes) {
  if (bytes == 0) return;
  held_->workspace = torch::stable::new_empty(held_->like, {{bytes}}, ScalarType::Byte);
  launch_.workspace = held_->workspace->mutable_data_ptr();
}

void Device::check_launched() const { check_cuda(cudaGetLastError()); }
Device::~Device() = default;

#endif

}  // namespace lierope
