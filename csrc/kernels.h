// The kernels of one instruction set, or of CUDA, as a table, and the table for this machine.
#pragma once
#include "params/cayley.h"
#include "params/expm_skew.h"
#include "params/launch.h"
#include "params/lie.h"
#include "params/rotate_blocks.h"
#include "params/rotate_circulant.h"
#include "params/rotate_pairs.h"

namespace lierope {

#if defined(LIEROPE_CUDA)
template <class Params>
struct Kernel {
  void (*launch)(const Params&, const cuda::Launch&);
  int64_t (*workspace)(const Params&, const cuda::Launch&);  // bytes; null where none is needed
};
#else
template <class Params>
using Kernel = void (*)(const Params&);
#endif

struct Kernels {
  const char* name;
  Kernel<ExpmSkewParams> expm_skew;
  Kernel<ExpmSkewBackwardParams> expm_skew_backward;
  Kernel<LieRotationsParams> lie_rotations;
  Kernel<LieRotationsBackwardParams> lie_rotations_backward;
  Kernel<LieRotateParams> lie_rotate;
  Kernel<LieRotateBackwardParams> lie_rotate_backward;
  Kernel<RotatePairsParams> rotate_pairs;
  Kernel<RotatePairsBackwardParams> rotate_pairs_backward;
  Kernel<RotateBlocksParams> rotate_blocks;
  Kernel<RotateBlocksBackwardParams> rotate_blocks_backward;
  Kernel<RotateCirculantParams> rotate_circulant;
  Kernel<RotateCirculantBackwardParams> rotate_circulant_backward;
  Kernel<CayleyParams> cayley;
  Kernel<CayleyBackwardParams> cayley_backward;
  Kernel<CayleyRotateParams> cayley_rotate;
};

// On the CPU the widest table this processor runs, or the one named by the environment variable
// LIEROPE_ISA.
const Kernels& kernels();

}  // namespace lierope
