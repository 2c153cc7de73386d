// The checks that all operators on generators and positions share.
#include "lie_generators.h"

namespace lierope {

// The block size whose strict upper triangle has `entries` entries.
static int64_t block_size_of(const char* op, int64_t entries) {
  LIEROPE_CHECK(entries <= kExpmSkewLargest * (kExpmSkewLargest - 1) / 2, op,
                ": generators must have blocks of at most ", kExpmSkewLargest,
                " features (lierope.ops takes larger ones), got ", entries, " entries a block");
  int64_t b = 1;
  while (b * (b - 1) / 2 < entries) ++b;
  LIEROPE_CHECK(b * (b - 1) / 2 == entries, op,
                ": generators must hold b*(b-1)/2 entries a block for a whole block size b, got ",
                entries);
  return b;
}

LieTensors::LieTensors(const char* op, const Tensor& generators_, const Tensor& positions_)
    : generators(generators_), positions(positions_), lie{} {
  check_device(op, "generators", generators_);
  check_device(op, "positions", positions_, "generators", generators_);
  LIEROPE_CHECK(generators_.dim() == 4, op,
                ": generators must have shape (C, H, G, b(b-1)/2), got ", shape_of(generators_));
  const int64_t dim = positions_.dim();
  LIEROPE_CHECK(dim >= 2, op, ": positions must have shape (..., M, C), got ",
                shape_of(positions_));
  LIEROPE_CHECK(positions_.size(dim - 1) == generators_.size(0), op,
                ": positions must have as many coordinates as generators, ", generators_.size(0),
                ", got ", positions_.size(dim - 1));
  lie.is_double = is_double(op, "generators", generators_);
  LIEROPE_CHECK(positions_.scalar_type() == generators_.scalar_type(), op,
                ": positions must have the dtype of generators, ", type_of(generators_), ", got ",
                type_of(positions_));
  lie.dims = generators.size(0);
  lie.heads = generators.size(1);
  lie.blocks = generators.size(2);
  lie.block_size = block_size_of(op, generators.size(3));
  lie.points = positions.size(dim - 2);
  lie.samples = product_of(positions, dim - 2);
}

void LieTensors::read(const char* op) {
  generators = contiguous(op, generators);
  positions = contiguous(op, positions);
  lie.generators = generators.const_data_ptr();
  lie.positions = positions.const_data_ptr();
}

}  // namespace lierope
