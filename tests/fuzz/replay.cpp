// Feeds the fuzzer's entry point with numbered random bytes: for tests and valgrind, without
// coverage.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

extern int64_t accepted_calls;
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size);

int main(int argc, char** argv) {
  const int count = argc > 1 ? std::atoi(argv[1]) : 300;
  for (int i = 0; i < count; ++i) {
    std::mt19937 random(static_cast<unsigned>(i));
    std::vector<uint8_t> bytes(160);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
    LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
  }
  std::printf("%d calls, %lld of them accepted\n", count, static_cast<long long>(accepted_calls));
  return 0;
}
