// The kernels of one instruction set as a table, and the choice of the table for this machine.
#pragma once
#include "params/cayley.h"
#include "params/expm_skew.h"
#include "params/lie.h"
#include "params/rotate_blocks.h"
#include "params/rotate_circulant.h"
#include "params/rotate_pairs.h"

namespace lierope {

struct Kernels {
  const char* name;
  void (*expm_skew)(const ExpmSkewParams&);
  void (*expm_skew_backward)(const ExpmSkewBackwardParams&);
  void (*lie_rotations)(const LieRotationsParams&);
  void (*lie_rotations_backward)(const LieRotationsBackwardParams&);
  void (*lie_rotate)(const LieRotateParams&);
  void (*lie_rotate_backward)(const LieRotateBackwardParams&);
  void (*rotate_pairs)(const RotatePairsParams&);
  void (*rotate_pairs_backward)(const RotatePairsBackwardParams&);
  void (*rotate_blocks)(const RotateBlocksParams&);
  void (*rotate_blocks_backward)(const RotateBlocksBackwardParams&);
  void (*rotate_circulant)(const RotateCirculantParams&);
  void (*rotate_circulant_backward)(const RotateCirculantBackwardParams&);
  void (*cayley)(const CayleyParams&);
  void (*cayley_backward)(const CayleyBackwardParams&);
  void (*cayley_rotate)(const CayleyRotateParams&);
};

// The widest table this processor runs, or the one named by the environment variable LIEROPE_ISA.
const Kernels& kernels();

}  // namespace lierope
