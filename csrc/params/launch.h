// Where a launcher puts its kernels and what it may use there.
#pragma once
#include <cstdint>

namespace lierope::cuda {

struct Launch {
  void* stream;         // cudaStream_t
  void* workspace;      // as many bytes as the operator's workspace function asked for, 256-byte
                        // aligned; null when it asked for none
  int multiprocessors;  // of the current device
  int shared_bytes;     // most dynamic shared memory that a block may ask for
  int architecture;     // 10 * major + minor
};

}  // namespace lierope::cuda
