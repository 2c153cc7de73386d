// A program of LibTorch alone, without Python: it loads lierope's library, calls its operators by
// the dispatcher, and runs a model that AOTInductor compiled with an encoding in its attention.
//
//   program LIBRARY CALLS MODEL     (tests/cpp/run.py writes the last two, and runs it)

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <dlfcn.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/csrc/jit/serialization/pickle.h>

#include <cmath>
#include <cstdio>
#include <exception>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

int failed = 0, passed = 0;

void report(bool good, const std::string& what) {
  std::printf("%s %s\n", good ? "ok    " : "FAILED", what.c_str());
  (good ? passed : failed)++;
}

bool close(const at::Tensor& found, const at::Tensor& expected, double tolerance) {
  return found.sizes() == expected.sizes() && found.scalar_type() == expected.scalar_type() &&
         at::allclose(found, expected, tolerance, tolerance);
}

// Loads the operators; no header of lierope is needed, and nothing of it is linked.
void load(const std::string& library) {
  auto& dispatcher = c10::Dispatcher::singleton();
  report(!dispatcher.findSchema({"lierope::expm_skew", ""}), "no operator before the library");
  if (dlopen(library.c_str(), RTLD_NOW) == nullptr) throw std::runtime_error(dlerror());
  report(dispatcher.findSchema({"lierope::expm_skew", ""}).has_value(), "operators after it");
}

// One operator by name and with arguments that only the file knows, as an interpreter would.
void call(const std::string& name, const c10::List<c10::IValue>& arguments,
          const c10::List<c10::IValue>& expected) {
  auto op = c10::Dispatcher::singleton().findSchemaOrThrow(("lierope::" + name).c_str(), "");
  torch::jit::Stack stack(arguments.begin(), arguments.end());
  op.callBoxed(stack);
  bool good = stack.size() == expected.size();
  for (size_t i = 0; good && i < stack.size(); i++)
    good = close(stack[i].toTensor(), expected.get(i).toTensor(), 1e-10);
  report(good, name);
}

// The same with types, which costs no boxing, and what a wrong call is told.
void call_with_types() {
  auto op = c10::Dispatcher::singleton()
                .findSchemaOrThrow("lierope::expm_skew", "")
                .typed<at::Tensor(const at::Tensor&)>();
  const double angle = 0.5;
  const at::Tensor a = at::tensor({0.0, angle, 0.0, 0.0}, at::kDouble).view({1, 2, 2});
  const at::Tensor rotation = op.call(a);
  report(std::abs(rotation[0][0][0].item<double>() - std::cos(angle)) < 1e-14, "a typed call");
  try {
    op.call(at::zeros({4, 3, 2}));
    report(false, "a wrong call is an error");
  } catch (const std::exception& error) {
    const bool told = std::string(error.what()).find("expm_skew: a must") != std::string::npos;
    report(told, "a wrong call is an error: " + std::string(error.what()).substr(0, 60));
  }
}

void run_model(const std::string& path, const c10::impl::GenericDict& saved) {
  torch::inductor::AOTIModelPackageLoader model(path);
  const at::Tensor images = saved.at("images").toTensor();
  const at::Tensor expected = saved.at("logits").toTensor();
  const std::vector<at::Tensor> found = model.run({images});
  report(found.size() == 1 && close(found[0], expected, 1e-4), "the compiled model");
  const bool fewer = close(model.run({images.narrow(0, 0, 2)})[0], expected.narrow(0, 0, 2), 1e-4);
  report(fewer, "the compiled model on a smaller batch");
}

c10::impl::GenericDict read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::vector<char> bytes(std::istreambuf_iterator<char>(file), {});
  return torch::jit::pickle_load(bytes).toGenericDict();
}

void run(const std::string& library, const std::string& calls, const std::string& model) {
  load(library);
  const auto saved = read(calls);
  for (const c10::IValue& entry : saved.at("calls").toList().vec()) {
    const auto& words = entry.toTupleRef().elements();
    call(words[0].toStringRef(), words[1].toList(), words[2].toList());
  }
  call_with_types();
  run_model(model, saved);
}

}  // namespace

int main(int count, char** words) {
  if (count != 4) {
    std::fprintf(stderr, "usage: %s LIBRARY CALLS MODEL\n", words[0]);
    return 2;
  }
  try {
    run(words[1], words[2], words[3]);
  } catch (const std::exception& error) {
    report(false, error.what());
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 ? 0 : 1;
}
