// Finds the positions that are whole multiples of others.
#include "rays.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

namespace lierope {

namespace {

constexpr int64_t kLargestIndex = 1 << 12;  // cells along an axis

// The positions of one sample as whole numbers of cells, (points, dims).
template <class T>
class Cells {
 public:
  Cells(const T* positions, int64_t points, int64_t dims)
      : positions_(positions), points_(points), dims_(dims), index_(size_t(points * dims)) {}

  // False where the coordinates of an axis are no multiples of the smallest of them.
  bool find() {
    for (int64_t c = 0; c < dims_; ++c) {
      const double spacing = spacing_of(c);
      if (!(spacing >= 0)) return false;
      for (int64_t n = 0; n < points_; ++n) {
        const double x = double(at(n, c)), index = spacing > 0 ? std::nearbyint(x / spacing) : 0;
        if (!close(index * spacing, x)) return false;
        index_[size_t(n * dims_ + c)] = int64_t(index);
      }
    }
    return true;
  }

  // Divides the cells of a point by their greatest common divisor, which is returned.
  int64_t reduce(int64_t point) {
    int64_t* index = cell(point);
    int64_t divisor = 0;
    for (int64_t c = 0; c < dims_; ++c) divisor = std::gcd(divisor, index[c]);
    for (int64_t c = 0; divisor > 0 && c < dims_; ++c) index[c] /= divisor;
    return divisor;
  }
  int compare(int64_t a, int64_t b) const {
    const int64_t *x = cell(a), *y = cell(b);
    for (int64_t c = 0; c < dims_; ++c)
      if (x[c] != y[c]) return x[c] < y[c] ? -1 : 1;
    return 0;
  }
  bool is_multiple(int64_t point, int64_t multiple, int64_t root) const {
    for (int64_t c = 0; c < dims_; ++c)
      if (!close(double(multiple) * double(at(root, c)), double(at(point, c)))) return false;
    return true;
  }

 private:
  const T* positions_;
  const int64_t points_, dims_;
  std::vector<int64_t> index_;

  double at(int64_t point, int64_t c) const { return double(positions_[point * dims_ + c]); }
  int64_t* cell(int64_t point) { return index_.data() + point * dims_; }
  const int64_t* cell(int64_t point) const { return index_.data() + point * dims_; }

  static bool close(double x, double y) {
    return std::abs(x - y) <= double(std::numeric_limits<T>::epsilon()) * std::abs(y);
  }

  // From the largest coordinate, whose rounding matters least; 0 if all are, -1 if there is none.
  double spacing_of(int64_t c) const {
    double least = 0, largest = 0;
    for (int64_t n = 0; n < points_; ++n) {
      const double size = std::abs(at(n, c));
      if (!(size <= double(std::numeric_limits<T>::max()))) return -1;
      if (size > 0 && (least == 0 || size < least)) least = size;
      largest = std::max(largest, size);
    }
    if (largest == 0) return 0;
    const double cells = std::nearbyint(largest / least);
    return cells <= double(kLargestIndex) ? largest / cells : -1;
  }
};

struct Root {
  int64_t point, divisor, last;  // the last multiple that it has
};

// root[point] and multiple[point] of one sample; `order` is left by direction and distance.
template <class T>
void find(const T* positions, int64_t points, int64_t dims, int64_t longest, int64_t* root,
          int64_t* multiple, std::vector<int64_t>& order) {
  std::iota(order.begin(), order.end(), 0);
  Cells<T> cells(positions, points, dims);
  if (!cells.find()) return;
  std::vector<int64_t> divisor(static_cast<size_t>(points));
  for (int64_t n = 0; n < points; ++n) divisor[size_t(n)] = cells.reduce(n);
  std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    const int by_direction = cells.compare(a, b);
    if (by_direction != 0) return by_direction < 0;
    return divisor[size_t(a)] != divisor[size_t(b)] ? divisor[size_t(a)] < divisor[size_t(b)]
                                                    : a < b;
  });
  std::vector<Root> roots;  // of one direction
  for (int64_t i = 0; i < points; ++i) {
    const int64_t n = order[size_t(i)], d = divisor[size_t(n)];
    if (i == 0 || cells.compare(order[size_t(i - 1)], n) != 0) roots.clear();
    if (d == 0) continue;
    const auto of = std::find_if(roots.begin(), roots.end(), [&](const Root& r) {
      const int64_t k = d / r.divisor;
      return d % r.divisor == 0 && k - r.last <= Rays::kLargestGap && k <= longest &&
             cells.is_multiple(n, k, r.point);
    });
    if (of == roots.end()) {
      roots.push_back({n, d, 1});
    } else {
      root[n] = of->point;
      multiple[n] = of->last = d / of->divisor;
    }
  }
}

// By item; a position by itself is its own root.
struct Found {
  std::vector<int64_t> root, multiple, order;

  explicit Found(int64_t items)
      : root(size_t(items)), multiple(size_t(items), 1), order(size_t(items)) {
    std::iota(root.begin(), root.end(), 0);
    std::iota(order.begin(), order.end(), 0);
  }
};

template <class T>
void find_all(const Lie& lie, int64_t longest, Found& found) {
  Found sample(lie.points);
  for (int64_t start = 0; start < lie.samples * lie.points; start += lie.points) {
    sample = Found(lie.points);
    find(static_cast<const T*>(lie.positions) + start * lie.dims, lie.points, lie.dims, longest,
         sample.root.data(), sample.multiple.data(), sample.order);
    for (int64_t n = 0; n < lie.points; ++n) {
      found.root[size_t(start + n)] = start + sample.root[size_t(n)];
      found.multiple[size_t(start + n)] = sample.multiple[size_t(n)];
      found.order[size_t(start + n)] = start + sample.order[size_t(n)];
    }
  }
}

bool are_allowed() {
  const char* word = std::getenv("LIEROPE_RAYS");
  return word == nullptr || std::strcmp(word, "never") != 0;
}

}  // namespace

Rays::Rays(const Lie& lie, int64_t longest, RayOrder order) {
  Found found(lie.samples * lie.points);
  if (longest > 0 && are_allowed()) {
    if (lie.is_double)
      find_all<double>(lie, longest, found);
    else
      find_all<float>(lie, longest, found);
  }
  // Rays in the order of their roots (and lengths), members in that of their multiples.
  const size_t items = found.root.size();
  std::vector<int64_t> ray(items), length(items, 1), roots;
  for (size_t i = 0; i < items; ++i) {
    if (found.root[i] == int64_t(i)) roots.push_back(int64_t(i));
    int64_t& of_ray = length[size_t(found.root[i])];
    of_ray = std::max(of_ray, found.multiple[i]);
  }
  if (order == RayOrder::longest_first)
    std::stable_sort(roots.begin(), roots.end(),
                     [&](int64_t a, int64_t b) { return length[size_t(a)] > length[size_t(b)]; });
  std::vector<int64_t> sizes(roots.size());
  for (size_t r = 0; r < roots.size(); ++r) ray[size_t(roots[r])] = int64_t(r);
  for (size_t i = 0; i < items; ++i) ++sizes[size_t(ray[size_t(found.root[i])])];
  first_.assign(sizes.size() + 1, 0);
  std::partial_sum(sizes.begin(), sizes.end(), first_.begin() + 1);
  members_.resize(items);
  std::vector<int64_t> next(first_);
  for (const int64_t i : found.order) {
    const int64_t k = found.multiple[size_t(i)];
    members_[size_t(next[size_t(ray[size_t(found.root[size_t(i)])])]++)] = {i, k};
    longest_ = std::max(longest_, k);
  }
}

Rays::~Rays() = default;

int64_t Rays::count() const { return int64_t(first_.size()) - 1; }
int64_t Rays::longest() const { return longest_; }
Ray Rays::operator[](int64_t ray) const {
  const int64_t first = first_[size_t(ray)];
  return {members_.data() + first, first_[size_t(ray) + 1] - first};
}

}  // namespace lierope
