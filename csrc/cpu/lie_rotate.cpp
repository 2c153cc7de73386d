// lie_rotate and its adjoint for blocks of one matrix a lane: each rotation is made once, used for
// every row, forgotten.
#include "../kernels.h"
#include "lane_exponential.h"
#include "lie_apply.h"
#include "lie_lanes.h"
#include "panel.h"

namespace lierope::cpu::LIEROPE_ISA {

// q or k: what is read and written.
template <class Storage>
struct Side {
  Rows<const Storage> x, y_grad;  // the backward: x is the forward's result
  Rows<Storage> out;
  int64_t heads;
};

// One head of one sample that uses the rotations of a task.
struct Item {
  int side;
  int64_t b, h;
};

// The tokens in the lanes of one head.
template <class S>
static LIEROPE_HD SomeRows<S> lane_rows(const Rows<S>& rows, const Item& item, int64_t token,
                                        int count) {
  return {rows.at(item.b, item.h, token), rows.token, count};
}

// Calls f(item, the one after it) for each; the last has itself after it.
template <class Storage, class F>
static LIEROPE_HD void for_items(const Tokens& shape, const Side<Storage>* sides,
                                 const LieTasks::Task& task, F&& f) {
  const int64_t first = shape.per_sample ? task.sample : 0;
  const int64_t q_each = sides[0].heads / shape.rotation_heads;
  const int64_t k_each = sides[1].heads / shape.rotation_heads, each = q_each + k_each;
  const int64_t count = (shape.per_sample ? 1 : shape.batch) * each;
  const auto item = [&](int64_t i) {
    const int64_t b = first + i / each, h = i % each;
    return h < q_each ? Item{0, b, task.head * q_each + h}
                      : Item{1, b, task.head * k_each + h - q_each};
  };
  for (int64_t i = 0; i < count; ++i) f(item(i), item(i + 1 < count ? i + 1 : i));
}

template <class Storage>
static void copy_prefix(const Tokens& shape, const Rows<const Storage>& x, const Rows<Storage>& y,
                        int64_t heads) {
  if (shape.prefix == 0) return;
  parallel_for(shape.batch * heads, 64, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      for (int64_t n = 0; n < shape.prefix; ++n)
        copy_row(x.at(i / heads, i % heads, n), y.at(i / heads, i % heads, n), 0, shape.head_dim);
  });
}

template <class Storage, class T, int N>
static void rotate_tasks(const LieRotateParams& params, const Side<Storage>* sides,
                         const LieTasks& tasks, int64_t begin, int64_t end) {
  const Lie& lie = params.lie;
  const Tokens& shape = params.shape;
  const int64_t rotated = lie.blocks * N;
  LieLanes<T, N> lanes(lie);
  Scratch<Vec<T>> rotations(rotated * N);
  StagedRows<Storage, T> staged(rotated);
  Ahead ahead;  // nothing: rows are asked for while others are turned
  for (int64_t index = begin; index < end; ++index) {
    const auto task = tasks[index];
    for (int64_t group = task.first_group; group < task.last_group; ++group) {
      lanes.set_group(task.sample, task.head, group);
      for (int64_t block = 0; block < lie.blocks; ++block) {
        Vec<T> a[math::kTriangle<N> + 1];
        lanes.contract(block, a);
        lane_expm<T, N>(a, rotations + block * N * N, ahead);
      }
      const int64_t token = shape.prefix + lanes.first();
      for_items(shape, sides, task, [&](const Item& item, const Item& next) {
        const auto x_of = [&](const Item& i) {
          return lane_rows(sides[i.side].x, i, token, lanes.count());
        };
        const auto y_of = [&](const Item& i) {
          return lane_rows(sides[i.side].out, i, token, lanes.count());
        };
        const SomeRows<const Storage> x = x_of(item);
        const SomeRows<Storage> y = y_of(item);
        rotate_rows<T, N>(rotations, lie.blocks, staged.read(x), staged.target(y),
                          {next_rows(x_of(next)), next_rows(y_of(next))});
        staged.flush(y);
        copy_rest(x, y, rotated, shape.head_dim);
      });
    }
  }
}

template <class Storage, class T, int N>
static void rotate_back_tasks(const LieRotateBackwardParams& params, const Side<Storage>* sides,
                              const LieTasks& tasks, const LieTaskGradients<T>& gradients,
                              int64_t begin, int64_t end) {
  constexpr int size = math::kTriangle<N>;
  const Lie& lie = params.lie;
  const Tokens& shape = params.shape;
  const int64_t rotated = lie.blocks * N;
  LieLanes<T, N> lanes(lie);
  Scratch<LaneAdjoint<T, N>> exponentials(lie.blocks);
  Scratch<Vec<T>> rotations(rotated * N), w(lie.blocks * size + 1);
  StagedRows<Storage, T> staged_y(rotated), staged_grad(rotated);
  Ahead ahead;  // nothing: rows are asked for while others are turned
  for (int64_t index = begin; index < end; ++index) {
    const auto task = tasks[index];
    lanes.clear_generator_sums();
    for (int64_t group = task.first_group; group < task.last_group; ++group) {
      lanes.set_group(task.sample, task.head, group);
      lanes.clear_position_sums();
      for (int64_t block = 0; block < lie.blocks; ++block) {
        Vec<T> a[size + 1];
        lanes.contract(block, a);
        LIEROPE_UNROLL
        for (int e = 0; e < size; ++e) a[e] = -a[e];
        lane_start<T, N>(exponentials[block], a, ahead);
        lane_rotation<T, N>(exponentials[block], rotations + block * N * N);
      }
      for (int64_t i = 0; i < lie.blocks * size; ++i) w[i] = Vec<T>{};
      const int64_t token = shape.prefix + lanes.first();
      for_items(shape, sides, task, [&](const Item& item, const Item& next) {
        const auto y_of = [&](const Item& i) {
          return lane_rows(sides[i.side].x, i, token, lanes.count());
        };
        const auto grad_of = [&](const Item& i) {
          return lane_rows(sides[i.side].y_grad, i, token, lanes.count());
        };
        const auto out_of = [&](const Item& i) {
          return lane_rows(sides[i.side].out, i, token, lanes.count());
        };
        const SomeRows<const Storage> y = y_of(item), y_grad = grad_of(item);
        const SomeRows<Storage> x_grad = out_of(item);
        rotate_rows_back<T, N>(
            rotations, lie.blocks, staged_y.read(y), staged_grad.read(y_grad),
            staged_grad.target(x_grad), w,
            {next_rows(y_of(next)), next_rows(grad_of(next)), next_rows(out_of(next))});
        staged_grad.flush(x_grad);
        copy_rest(y_grad, x_grad, rotated, shape.head_dim);
      });
      for (int64_t block = 0; block < lie.blocks; ++block) {
        Vec<T> abar[size + 1];  // twice Abar, for w is twice W0
        lane_adjoint<T, N>(exponentials[block], w + block * size, abar, ahead);
        lanes.add_gradient(block, abar);
      }
      if (T* out = gradients.positions(task.sample, task.head)) lanes.store_position_sums(out);
    }
    lanes.reduce_generators(gradients.generators(index));
  }
}

template <class Storage, int N>
static void lie_rotate_lanes(const LieRotateParams& params) {
  using T = Compute<Storage>;
  const Tokens& shape = params.shape;
  const Side<Storage> sides[2] = {{reads<Storage>(params.q),
                                   {},
                                   writes<Storage>(shape, params.q_out, shape.q_heads),
                                   shape.q_heads},
                                  {reads<Storage>(params.k),
                                   {},
                                   writes<Storage>(shape, params.k_out, shape.k_heads),
                                   shape.k_heads}};
  for (const Side<Storage>& side : sides) copy_prefix(shape, side.x, side.out, side.heads);
  const LieTasks tasks(params.lie, kLanes<T>);
  parallel_for(tasks.count, 1, [&](int64_t begin, int64_t end) {
    rotate_tasks<Storage, T, N>(params, sides, tasks, begin, end);
  });
}

template <class Storage, int N>
static void lie_rotate_lanes_backward(const LieRotateBackwardParams& params) {
  using T = Compute<Storage>;
  const Tokens& shape = params.shape;
  const Side<Storage> sides[2] = {
      {reads<Storage>(params.q_rotated), reads<Storage>(params.q_grad),
       writes<Storage>(shape, params.q_out, shape.q_heads), shape.q_heads},
      {reads<Storage>(params.k_rotated), reads<Storage>(params.k_grad),
       writes<Storage>(shape, params.k_out, shape.k_heads), shape.k_heads}};
  for (const Side<Storage>& side : sides) copy_prefix(shape, side.y_grad, side.out, side.heads);
  const LieTasks tasks(params.lie, kLanes<T>);
  const LieTaskGradients<T> gradients(params.lie, tasks, params.generators_out,
                                      params.positions_out);
  parallel_for(tasks.count, 1, [&](int64_t begin, int64_t end) {
    rotate_back_tasks<Storage, T, N>(params, sides, tasks, gradients, begin, end);
  });
  gradients.sum();
}

void lie_rotate(const LieRotateParams& params) {
  if (params.lie.block_size > kLanesLargest) return panel_lie_rotate(params);
  with_storage(params.shape.dtype, [&](auto storage) {
    with_size<kLanesLargest>(params.lie.block_size,
                             [&](auto n) { lie_rotate_lanes<decltype(storage), n>(params); });
  });
}

void lie_rotate_backward(const LieRotateBackwardParams& params) {
  if (params.lie.block_size > kLanesLargest) return panel_lie_rotate_backward(params);
  with_storage(params.shape.dtype, [&](auto storage) {
    with_size<kLanesLargest>(params.lie.block_size, [&](auto n) {
      lie_rotate_lanes_backward<decltype(storage), n>(params);
    });
  });
}

}  // namespace lierope::cpu::LIEROPE_ISA
