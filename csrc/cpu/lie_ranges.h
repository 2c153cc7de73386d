// Loops over the rotations of generators and positions for blocks of one matrix a lane.
#pragma once
#include "lane_rays.h"
#include "lie_lanes.h"

namespace lierope::cpu::LIEROPE_ISA {

// f(step, the one after it, which is the last itself at the end, whether there is one) for the
// steps of a task.
template <class T, class F>
void each_step(const LieTasks::Task& task, F&& f) {
  Steps<T> steps(task);
  Step<T> step, next;
  for (bool more = steps.next(step); more; step = next) {
    next = step;
    more = steps.next(next);
    f(step, next, more);
  }
}

// Makes rotations for a worker, made from params, with
//   select(group)          before the steps of a group of pairs
//   worker(step, next, r)  for R of this step, (vectors, N, N) as held (math::kLessIdentity)
template <class T, int N, class Worker, class Params>
void each_lane_rotation(const Params& params, const Lie& lie) {
  const LieTasks tasks(lie, PairGroups(lie, kLanes<T>, kVectors<T, N>), math::kLessIdentity<N>);
  parallel_for(tasks.count(), 1, [&](int64_t begin, int64_t end) {
    LieLanes<T, N> lanes(lie);
    LanePowers<T, N> powers;
    Worker worker(params);
    Ahead ahead;  // nothing: rows are asked for while others are turned
    for (int64_t index = begin; index < end; ++index) {
      const auto task = tasks[index];
      lanes.select(task.group);
      worker.select(task.group);
      each_step<T>(task, [&](const Step<T>& step, const Step<T>& next, bool) {
        if (step.starts) {
          lanes.set(step);
          for (int m = 0; m < task.group.vectors; ++m) {
            Vec<T> a[math::kTriangle<N> + 1];
            lanes.contract(m, a);
            lane_rotation<T, N>(a, powers.root(m), ahead);
          }
          powers.start(task.group.vectors);
        }
        worker(step, next, powers.at(step.multiple));
      });
    }
  });
}

// Runs their adjoints for a worker with
//   kSign                     of the exponent: R = exp(kSign A)
//   worker(step, next, r, w)  adds twice W0 of this step's rotation to w (vectors, triangle)
template <class T, int N, class Worker, class Params>
void each_lane_adjoint(const Params& params, const Lie& lie) {
  // Each position by itself where it has a gradient of its own.
  const LieTasks tasks(lie, PairGroups(lie, kLanes<T>, kVectors<T, N>),
                       math::kLessIdentity<N> && params.positions_out == nullptr);
  const LieTaskGradients<T, N> gradients(lie, tasks, params.generators_out, params.positions_out);
  parallel_for(tasks.count(), 1, [&](int64_t begin, int64_t end) {
    LieLanes<T, N> lanes(lie);
    Scratch<LaneAdjoint<T, N>> exponentials(kVectors<T, N>);
    LanePowers<T, N> powers;
    LaneRaySums<T, N> sums(tasks.longest());
    Worker worker(params);
    Ahead ahead;
    for (int64_t index = begin; index < end; ++index) {
      const auto task = tasks[index];
      lanes.select(task.group);
      worker.select(task.group);
      each_step<T>(task, [&](const Step<T>& step, const Step<T>& next, bool more) {
        constexpr int size = math::kTriangle<N>;
        const int vectors = task.group.vectors;
        Vec<T> a[kVectors<T, N> * size + 1];
        if (step.starts) {
          lanes.set(step);
          for (int m = 0; m < vectors; ++m) {
            lanes.contract(m, a);
            for (int t = 0; t < size; ++t) a[t] *= T(Worker::kSign);
            lane_start<T, N>(exponentials[m], a, ahead);
            const Vec<T>* r = exponentials[m].rotation();
            for (int e = 0; e < N * N; ++e) powers.root(m)[e] = r[e];
          }
          powers.start(vectors);
          sums.clear();
        }
        worker(step, next, powers.at(step.multiple), sums.of(step.multiple));
        if (more && !next.starts) return;
        for (int m = 0; m < vectors; ++m) {
          Vec<T>* abar = a + m * size;  // twice that, for w is twice W0
          lane_adjoint<T, N>(exponentials[m], sums.collect(m, powers.root(m)), abar, ahead);
          lanes.add_gradient(m, abar);
        }
        if (T* out = gradients.positions(index)) lanes.position_gradients(step, a, out);
      });
      lanes.write_generators(gradients.generators(index));
    }
  });
  gradients.sum();
}

}  // namespace lierope::cpu::LIEROPE_ISA
