// Bidiagonalisation of interleaved matrices (part of batched_svd_body.h): the algorithm of
// batched_svd_body_alone.h, every scalar of it a vector whose lanes are different matrices.

// Entry (i, j) of all lanes at data + (j * rows + i) * lanes.
template <typename T>
struct LaneMatrix {
  T* data;
  int64_t rows;

  REPSIM_INLINE T* at(int64_t i, int64_t j) const { return data + (j * rows + i) * kLanes<T>; }
  REPSIM_INLINE Vec<T> operator()(int64_t i, int64_t j) const { return load(at(i, j)); }
};

// Entry i of an interleaved vector.
template <typename T>
REPSIM_INLINE Vec<T> entry(const T* vector, int64_t i) {
  return load(vector + i * kLanes<T>);
}
template <typename T>
REPSIM_INLINE void set_entry(T* vector, int64_t i, Vec<T> value) {
  store(vector + i * kLanes<T>, value);
}

// Calls body(std::integral_constant<int, count>, first) for [first, end) in pieces of four columns
// and the rest.
template <typename Body>
REPSIM_INLINE void by_four_columns(int64_t first, int64_t end, const Body& body) {
  for (; first + 4 <= end; first += 4) body(std::integral_constant<int, 4>{}, first);
  switch (end - first) {
    case 3:
      return body(std::integral_constant<int, 3>{}, first);
    case 2:
      return body(std::integral_constant<int, 2>{}, first);
    case 1:
      return body(std::integral_constant<int, 1>{}, first);
    default:
      return;
  }
}

template <typename T>
int64_t bidiagonalise_together_workspace(int64_t rows, int64_t columns) {
  return 4 * (rows + columns) * kLanes<T>;
}

// a (rows, columns) is overwritten; rows >= columns >= 1.
template <typename T>
void bidiagonalise_together(const LaneMatrix<T>& a, int64_t columns, T* diagonal, T* above,
                            T* workspace) {
  const int64_t rows = a.rows;
  std::fill_n(workspace, bidiagonalise_together_workspace<T>(rows, columns), T{0});
  T* next = workspace;
  const auto take = [&](int64_t count) { return std::exchange(next, next + count * kLanes<T>); };
  RankTwo<T> now{take(rows), take(rows), take(columns), take(columns)};
  RankTwo<T> last{take(rows), take(rows), take(columns), take(columns)};

  for (int64_t k = 0; k < columns; ++k) {
    const Vec<T> last_yk = entry(last.y, k), last_vk = entry(last.v, k);
    const auto updated = [&](int64_t i) __attribute__((always_inline)) {
      return a(i, k) - entry(last.u, i) * last_yk - entry(last.x, i) * last_vk;
    };
    Vec<T> tail_square{};
    for (int64_t i = k + 1; i < rows; ++i) {
      const Vec<T> value = updated(i);
      set_entry(now.u, i, value);
      tail_square += value * value;
    }
    const Reflectors<T> left = make_reflectors<T>(updated(k), tail_square);
    set_entry(diagonal, k, left.beta);
    if (k + 1 == columns) break;
    set_entry(now.u, k, broadcast(T{1}));
    for (int64_t i = k + 1; i < rows; ++i) set_entry<T>(now.u, i, entry(now.u, i) * left.scale);

    by_four_columns(k + 1, columns,
                    [&]<int kCount>(std::integral_constant<int, kCount>, int64_t j)
                        __attribute__((always_inline)) {
                          Vec<T> sum[kCount] = {}, last_y[kCount], last_v[kCount];
#pragma GCC unroll 4
                          for (int c = 0; c < kCount; ++c) {
                            last_y[c] = entry(last.y, j + c);
                            last_v[c] = entry(last.v, j + c);
                          }
                          for (int64_t i = k; i < rows; ++i) {
                            const Vec<T> u = entry(now.u, i);
                            const Vec<T> last_u = entry(last.u, i), last_x = entry(last.x, i);
#pragma GCC unroll 4
                            for (int c = 0; c < kCount; ++c) {
                              const Vec<T> value =
                                  a(i, j + c) - last_u * last_y[c] - last_x * last_v[c];
                              store<T>(a.at(i, j + c), value);
                              sum[c] += value * u;
                            }
                          }
#pragma GCC unroll 4
                          for (int c = 0; c < kCount; ++c) set_entry(now.y, j + c, sum[c]);
                        });

    Vec<T> first{};
    tail_square = Vec<T>{};
    for (int64_t j = k + 1; j < columns; ++j) {
      const Vec<T> y = entry(now.y, j) * left.tau, value = a(k, j) - y;
      set_entry(now.y, j, y);
      set_entry(now.v, j, value);
      if (j == k + 1) {
        first = value;
      } else {
        tail_square += value * value;
      }
    }
    const Reflectors<T> right = make_reflectors<T>(first, tail_square);
    set_entry(above, k, right.beta);
    set_entry(now.v, k + 1, broadcast(T{1}));
    Vec<T> y_v = entry(now.y, k + 1);
    for (int64_t j = k + 2; j < columns; ++j) {
      const Vec<T> v = entry(now.v, j) * right.scale;
      set_entry(now.v, j, v);
      y_v += v * entry(now.y, j);
    }

    for (int64_t i = k + 1; i < rows; ++i) set_entry<T>(now.x, i, -(entry(now.u, i) * y_v));
    by_four_columns(k + 1, columns,
                    [&]<int kCount>(std::integral_constant<int, kCount>, int64_t j)
                        __attribute__((always_inline)) {
                          Vec<T> v[kCount];
#pragma GCC unroll 4
                          for (int c = 0; c < kCount; ++c) v[c] = entry(now.v, j + c);
                          for (int64_t i = k + 1; i < rows; ++i) {
                            Vec<T> sum = entry(now.x, i);
#pragma GCC unroll 4
                            for (int c = 0; c < kCount; ++c) sum += a(i, j + c) * v[c];
                            set_entry(now.x, i, sum);
                          }
                        });
    for (int64_t i = k + 1; i < rows; ++i) set_entry<T>(now.x, i, entry(now.x, i) * right.tau);
    std::swap(now, last);
  }
}

template <typename T>
void largest_shape(const MatrixView<const T>* matrices, int64_t count, int64_t& rows,
                   int64_t& columns) {
  rows = columns = 0;
  for (int64_t l = 0; l < count; ++l) {
    rows = std::max(rows, matrices[l].rows);
    columns = std::max(columns, matrices[l].columns);
  }
}

template <typename T>
int64_t values_together_workspace(int64_t rows, int64_t columns) {
  return (rows * columns + 3 * columns) * kLanes<T> +
         std::max(bidiagonalise_together_workspace<T>(rows, columns),
                  bidiagonal_values_workspace<T, true>(columns));
}

template <typename T>
void values_together(const MatrixView<const T>* matrices, int64_t count, T* workspace,
                     T* const* values) {
  int64_t rows, columns;
  largest_shape(matrices, count, rows, columns);
  const LaneMatrix<T> a{workspace, rows};
  T* diagonal = a.at(0, columns);
  T* above = diagonal + columns * kLanes<T>;
  T* found = above + columns * kLanes<T>;
  T* rest = found + columns * kLanes<T>;
  Balance<T> balances[kLanes<T>];
  load_together(matrices, count, rows, columns, a.data);
  balance_together(a.data, rows * columns, balances);
  bidiagonalise_together(a, columns, diagonal, above, rest);
  bidiagonal_values<T, true>(diagonal, above, columns, found, rest);
  for (int64_t l = 0; l < count; ++l) {
    const T unscale =
        balances[l].finite ? T{1} / balances[l].scale : std::numeric_limits<T>::quiet_NaN();
    for (int64_t j = 0; j < matrices[l].columns; ++j) {
      values[l][j] = found[j * kLanes<T> + l] * unscale;
    }
  }
}
