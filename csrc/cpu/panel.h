// Kernels for matrices of side 9 to 128: one at a time in cache, half of each symmetric product.
#pragma once
#include "../kernels.h"
#include "../math/portable.h"

namespace lierope::cpu::LIEROPE_ISA {

void panel_expm_skew(const ExpmSkewParams& params);
void panel_expm_skew_backward(const ExpmSkewBackwardParams& params);
void panel_lie_rotations(const LieRotationsParams& params);
void panel_lie_rotations_backward(const LieRotationsBackwardParams& params);
void panel_lie_rotate(const LieRotateParams& params);
void panel_lie_rotate_backward(const LieRotateBackwardParams& params);

}  // namespace lierope::cpu::LIEROPE_ISA
