// Calls every operator with arguments that are nearly right, chosen by bytes: no crash, no bad
// access, and each error names the operator. Bytes come from libFuzzer (tools/fuzz.sh) or by number
// (replay.cpp).
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <string>
#include <vector>

#include "bytes.h"

int64_t accepted_calls = 0;  // those that were no error

namespace {

using Shape = std::vector<int64_t>;

const char* const kOperators[] = {
    "expm_skew",    "expm_skew_backward",    "lie_rotations",    "lie_rotations_backward",
    "lie_rotate",   "lie_rotate_backward",   "rotate_blocks",    "rotate_blocks_backward",
    "rotate_pairs", "rotate_pairs_backward", "rotate_circulant", "rotate_circulant_backward",
    "cayley",       "cayley_backward",       "cayley_rotate",
};

// Sizes that fit each other, from which arguments then depart here and there.
struct Sizes {
  int64_t B, H, kv_heads, own_heads, N, prefix, b, G, C, D;
  bool per_sample;
};

class Call {
 public:
  Call(Bytes& data, std::string name) : data_(data), name_(std::move(name)) {
    Sizes& s = sizes_;
    s.B = pick(0, 3);
    s.own_heads = pick(1, 3);
    s.H = s.own_heads * pick(1, 2);
    s.kv_heads = s.own_heads * pick(0, 2);
    s.prefix = pick(0, 2);
    s.N = s.prefix + pick(0, 9);
    s.b = data_.flag() ? pick(0, 12) : data_.one_of<int64_t>({16, 32, 33, 64, 70});
    s.G = pick(0, 3);
    s.C = pick(1, 3);
    s.D = s.b * s.G + pick(0, 3);
    s.per_sample = data_.flag();
    storage_ = data_.one_of({at::kFloat, at::kFloat, at::kDouble, at::kBFloat16, at::kHalf});
  }

  void run() {
    const auto handle =
        c10::Dispatcher::singleton().findSchemaOrThrow(("lierope::" + name_).c_str(), "");
    torch::jit::Stack stack;
    for (const c10::Argument& argument : handle.schema().arguments())
      stack.push_back(value(argument));
    try {
      handle.callBoxed(stack);
    } catch (const std::exception& error) {
      check_text(error.what());
      return;
    }
    for (const c10::IValue& out : stack)
      if (!out.isTensor() || !out.toTensor().defined()) complain("an output is no tensor");
    ++accepted_calls;
  }

 private:
  Bytes& data_;
  std::string name_;
  Sizes sizes_;
  at::ScalarType storage_;

  int64_t pick(int64_t low, int64_t high) { return data_.between(low, high); }
  bool rarely() { return data_.number<uint8_t>() < 12; }
  bool starts(const char* word) const { return name_.rfind(word, 0) == 0; }

  c10::IValue value(const c10::Argument& argument) {
    const std::string& name = argument.name();
    if (argument.type()->kind() == c10::TypeKind::BoolType) return data_.flag();
    if (argument.type()->kind() == c10::TypeKind::IntType) {
      if (rarely()) return data_.number<int64_t>();
      if (name == "num_prefix_tokens") return sizes_.prefix;
      if (name == "block_size") return sizes_.b;
      return pick(0, sizes_.b + 1);  // bandwidth
    }
    return tensor(shape(name), type(name));
  }

  Shape shape(const std::string& name) {
    const Sizes& s = sizes_;
    const int64_t tokens = s.N - s.prefix;
    Shape result = s.per_sample ? Shape{s.B} : Shape{};
    const auto with = [&](Shape tail) {
      result.insert(result.end(), tail.begin(), tail.end());
      return result;
    };
    if (name == "s" && starts("cayley_rotate")) return {s.own_heads, s.b, s.b};
    if (name == "x") return {s.B, s.own_heads, s.N, s.b};
    if (name == "a" || name == "s" || name == "p") return with({s.b, s.b});
    if (name == "grad" && !starts("lie")) return with({s.b, s.b});
    if (name == "grad") return with({s.own_heads, tokens, s.G, s.b, s.b});
    if (name == "generators") return {s.C, s.own_heads, s.G, s.b * (s.b - 1) / 2};
    if (name == "positions") return with({tokens, s.C});
    if (name == "rotations") return with({s.own_heads, tokens, s.G, s.b, s.b});
    if (name == "angles" && starts("rotate_pairs")) return with({s.own_heads, tokens, s.D / 2});
    if (name == "angles") return with({s.own_heads, tokens, s.G * ((s.b - 1) / 2)});
    return {s.B, name[0] == 'k' ? s.kv_heads : s.H, s.N, s.D};
  }

  at::ScalarType type(const std::string& name) {
    if (rarely())
      return data_.one_of({at::kFloat, at::kDouble, at::kHalf, at::kLong, at::kComplexFloat});
    const bool token = name[0] == 'q' || name[0] == 'k' || name == "x";
    const bool reduced = storage_ == at::kBFloat16 || storage_ == at::kHalf;
    return !token && reduced ? at::kFloat : storage_;
  }

  at::Tensor tensor(Shape sizes, at::ScalarType type) {
    if (rarely()) depart(sizes);
    int64_t count = 1;
    for (const int64_t size : sizes) count *= size;
    if (count > 200000) {  // no time for more; memory that is not there is for the tests
      for (int64_t& size : sizes) size = std::min<int64_t>(size, 2);
    }
    at::Tensor made = laid_out(sizes, at::TensorOptions().dtype(type));
    spoil(made);
    return made;
  }

  void depart(Shape& sizes) {
    const size_t at = sizes.empty() ? 0 : size_t(pick(0, int64_t(sizes.size()) - 1));
    switch (pick(0, 4)) {
      case 0: sizes.insert(sizes.begin() + int64_t(at), pick(0, 2)); break;
      case 1:
        if (!sizes.empty()) sizes.erase(sizes.begin() + int64_t(at));
        break;
      case 2:
        if (!sizes.empty()) sizes[at] = pick(0, 20);
        break;
      case 3:
        if (!sizes.empty()) sizes[at] += 1;
        break;
      default:
        if (!sizes.empty() && sizes[at] > 0) sizes[at] -= 1;
    }
  }

  // Values of any layout: dense, a step apart, transposed, sliced, expanded, overlapping.
  at::Tensor laid_out(const Shape& sizes, at::TensorOptions options) {
    const int64_t rank = int64_t(sizes.size());
    const int kind = int(pick(0, 6));
    if (kind == 1 && rank > 1) {
      Shape swapped = sizes;
      std::swap(swapped[size_t(rank - 1)], swapped[size_t(rank - 2)]);
      return filled(swapped, options).transpose(-1, -2);
    }
    if (kind == 2 && rank > 0) {
      Shape wider = sizes;
      wider.back() = 2 * wider.back() + 1;
      return filled(wider, options).slice(-1, 0, 2 * sizes.back(), 2);
    }
    if (kind == 3 && rank > 0) {
      Shape wider = sizes;
      wider.back() += 3;
      return filled(wider, options).slice(-1, 3);
    }
    if (kind == 4 && rank > 0) {
      Shape one = sizes;
      one[size_t(pick(0, rank - 1))] = 1;
      return filled(one, options).expand(sizes);
    }
    if (kind == 5 && rank > 1) {
      Shape swapped = sizes;
      std::swap(swapped.front(), swapped[1]);
      return filled(swapped, options).transpose(0, 1);
    }
    if (kind == 6 && rank > 1) {
      Shape strides(sizes.size(), 1);
      int64_t reach = 1;
      for (const int64_t size : sizes) reach += size > 0 ? size - 1 : 0;
      return filled({reach}, options).as_strided(sizes, strides);
    }
    return filled(sizes, options);
  }

  at::Tensor filled(const Shape& sizes, at::TensorOptions options) {
    const double scale = std::pow(10.0, double(pick(-9, 9)) / 1.5);
    // Cheap, of both signs, and without a pattern that symmetric code could hide in.
    int64_t count = 1;
    for (const int64_t size : sizes) count *= size;
    const at::Tensor ramp = at::arange(count, at::TensorOptions().dtype(at::kDouble));
    return (scale * (ramp * 2.399963).sin()).reshape(sizes).to(options);
  }

  void spoil(at::Tensor& x) {
    if (!rarely() || x.numel() == 0 || !at::isFloatingType(x.scalar_type())) return;
    const double bad[] = {NAN, INFINITY, -INFINITY, -0.0, 1e-42, 3e38};
    at::Tensor place = x;
    while (place.dim() > 0) place = place.select(0, pick(0, place.size(0) - 1));
    place.fill_(bad[pick(0, 5)]);
  }

  void check_text(const std::string& text) const {
    const std::string op =
        starts("lie_rotations") ? "lie_rotations" : name_.substr(0, name_.find("_backward"));
    if (text.find(op) == std::string::npos)
      complain("an error does not name its operator: " + text);
  }

  [[noreturn]] void complain(const std::string& text) const {
    std::fprintf(stderr, "%s: %s\n", name_.c_str(), text.c_str());
    std::abort();
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  static const bool once = [] {
    at::set_num_threads(1);
    return true;
  }();
  (void)once;
  Bytes data(bytes, size);
  const auto op = size_t(data.between(0, int64_t(std::size(kOperators)) - 1));
  Call(data, kOperators[op]).run();
  return 0;
}
