// What Python asks of the library as such, by way of ctypes: which sources it was made from, which
// kernels it chose.
#include <exception>

#include "kernels.h"

extern "C" {

__attribute__((visibility("default"))) const char* lierope_source_hash() {
  return LIEROPE_SOURCE_HASH;
}

// Null when LIEROPE_ISA names a set that does not exist or does not run here; error then holds why.
__attribute__((visibility("default"))) const char* lierope_instruction_set(char* error, int size) {
  try {
    return lierope::kernels().name;
  } catch (const std::exception& e) {
    int i = 0;
    for (; i + 1 < size && e.what()[i] != '\0'; ++i) error[i] = e.what()[i];
    if (size > 0) error[i] = '\0';
    return nullptr;
  }
}

__attribute__((visibility("default"))) const char* lierope_compiler() {
#if defined(__clang__)
  return "clang " __clang_version__;
#else
  return "gcc " __VERSION__;
#endif
}

__attribute__((visibility("default"))) int lierope_circulant_block_supported(int block_size) {
  return lierope::circulant_block_supported(block_size);
}

}  // extern "C"
