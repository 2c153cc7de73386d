// Collects CUDA's launchers, and what they ask of memory, into the library's table.
#include "../csrc/kernels.h"

#if defined(LIEROPE_EMULATED)
#define LIEROPE_TABLE_NAME "emulated"
#else
#define LIEROPE_TABLE_NAME "cuda"
#endif

namespace lierope {
namespace cuda {

void expm_skew(const ExpmSkewParams&, const Launch&);
int64_t expm_skew_workspace(const ExpmSkewParams&, const Launch&);
void expm_skew_backward(const ExpmSkewBackwardParams&, const Launch&);
int64_t expm_skew_backward_workspace(const ExpmSkewBackwardParams&, const Launch&);
void lie_rotations(const LieRotationsParams&, const Launch&);
int64_t lie_rotations_workspace(const LieRotationsParams&, const Launch&);
void lie_rotations_backward(const LieRotationsBackwardParams&, const Launch&);
int64_t lie_rotations_backward_workspace(const LieRotationsBackwardParams&, const Launch&);
void lie_rotate(const LieRotateParams&, const Launch&);
int64_t lie_rotate_workspace(const LieRotateParams&, const Launch&);
void lie_rotate_backward(const LieRotateBackwardParams&, const Launch&);
int64_t lie_rotate_backward_workspace(const LieRotateBackwardParams&, const Launch&);
void rotate_pairs(const RotatePairsParams&, const Launch&);
void rotate_pairs_backward(const RotatePairsBackwardParams&, const Launch&);
int64_t rotate_pairs_backward_workspace(const RotatePairsBackwardParams&, const Launch&);
void rotate_blocks(const RotateBlocksParams&, const Launch&);
void rotate_blocks_backward(const RotateBlocksBackwardParams&, const Launch&);
int64_t rotate_blocks_backward_workspace(const RotateBlocksBackwardParams&, const Launch&);
void rotate_circulant(const RotateCirculantParams&, const Launch&);
int64_t rotate_circulant_workspace(const RotateCirculantParams&, const Launch&);
void rotate_circulant_backward(const RotateCirculantBackwardParams&, const Launch&);
int64_t rotate_circulant_backward_workspace(const RotateCirculantBackwardParams&, const Launch&);
void cayley(const CayleyParams&, const Launch&);
int64_t cayley_workspace(const CayleyParams&, const Launch&);
void cayley_backward(const CayleyBackwardParams&, const Launch&);
int64_t cayley_backward_workspace(const CayleyBackwardParams&, const Launch&);
void cayley_rotate(const CayleyRotateParams&, const Launch&);
int64_t cayley_rotate_workspace(const CayleyRotateParams&, const Launch&);

}  // namespace cuda

const Kernels& kernels() {
  static const Kernels table = {
      .name = LIEROPE_TABLE_NAME,
      .expm_skew = {cuda::expm_skew, cuda::expm_skew_workspace},
      .expm_skew_backward = {cuda::expm_skew_backward, cuda::expm_skew_backward_workspace},
      .lie_rotations = {cuda::lie_rotations, cuda::lie_rotations_workspace},
      .lie_rotations_backward = {cuda::lie_rotations_backward,
                                 cuda::lie_rotations_backward_workspace},
      .lie_rotate = {cuda::lie_rotate, cuda::lie_rotate_workspace},
      .lie_rotate_backward = {cuda::lie_rotate_backward, cuda::lie_rotate_backward_workspace},
      .rotate_pairs = {cuda::rotate_pairs, nullptr},
      .rotate_pairs_backward = {cuda::rotate_pairs_backward, cuda::rotate_pairs_backward_workspace},
      .rotate_blocks = {cuda::rotate_blocks, nullptr},
      .rotate_blocks_backward = {cuda::rotate_blocks_backward,
                                 cuda::rotate_blocks_backward_workspace},
      .rotate_circulant = {cuda::rotate_circulant, cuda::rotate_circulant_workspace},
      .rotate_circulant_backward = {cuda::rotate_circulant_backward,
                                    cuda::rotate_circulant_backward_workspace},
      .cayley = {cuda::cayley, cuda::cayley_workspace},
      .cayley_backward = {cuda::cayley_backward, cuda::cayley_backward_workspace},
      .cayley_rotate = {cuda::cayley_rotate, cuda::cayley_rotate_workspace},
  };
  return table;
}

}  // namespace lierope
