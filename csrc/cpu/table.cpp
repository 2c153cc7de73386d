// Collects the kernels of this instruction set.
#include "../kernels.h"

#define LIEROPE_STRING_(x) #x
#define LIEROPE_STRING(x) LIEROPE_STRING_(x)

namespace lierope::cpu::LIEROPE_ISA {

void expm_skew(const ExpmSkewParams&);
void expm_skew_backward(const ExpmSkewBackwardParams&);
void lie_rotations(const LieRotationsParams&);
void lie_rotations_backward(const LieRotationsBackwardParams&);
void lie_rotate(const LieRotateParams&);
void lie_rotate_backward(const LieRotateBackwardParams&);
void rotate_pairs(const RotatePairsParams&);
void rotate_pairs_backward(const RotatePairsBackwardParams&);
void rotate_blocks(const RotateBlocksParams&);
void rotate_blocks_backward(const RotateBlocksBackwardParams&);
void rotate_circulant(const RotateCirculantParams&);
void rotate_circulant_backward(const RotateCirculantBackwardParams&);
void cayley(const CayleyParams&);
void cayley_backward(const CayleyBackwardParams&);
void cayley_rotate(const CayleyRotateParams&);

extern const Kernels table;
const Kernels table = {
    LIEROPE_STRING(LIEROPE_ISA), expm_skew,     expm_skew_backward,     lie_rotations,
    lie_rotations_backward,      lie_rotate,    lie_rotate_backward,    rotate_pairs,
    rotate_pairs_backward,       rotate_blocks, rotate_blocks_backward, rotate_circulant,
    rotate_circulant_backward,   cayley,        cayley_backward,        cayley_rotate,
};

}  // namespace lierope::cpu::LIEROPE_ISA
