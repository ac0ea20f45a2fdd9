// Bidiagonalisation of one matrix, vectors along its columns (part of batched_svd_body.h).
//
// Householder as in Golub and Van Loan 5.4.8, with the updates delayed (Dongarra, Sorensen and
// Hammarling 1989): A - u y^T - x v^T of one step is written while the next step forms A^T u, so a
// step passes over the matrix twice, once writing, and needs no second copy of it. The rest of the
// matrix is in L2, soon in L1; then both passes keep the multipliers busy. A tall matrix becomes a
// triangle first, for one pass a column.

constexpr int kColumnsAtOnce = 4;

// Row vectors are masked from here on: the columns that go together with the first one needed.
template <typename T>
constexpr int64_t first_of_row(int64_t j) {
  constexpr int64_t kStep = kLanes<T> > kColumnsAtOnce ? kLanes<T> : kColumnsAtOnce;
  return j / kStep * kStep;
}

template <typename T>
struct AlonePitches {
  int64_t column;   // elements from one column to the next
  int64_t columns;  // with the zero columns behind them
  int64_t row;      // elements of a row vector

  AlonePitches(int64_t rows, int64_t count)
      : column(round_up_to_lanes<T>(rows)),
        columns((count + kColumnsAtOnce - 1) / kColumnsAtOnce * kColumnsAtOnce),
        row(round_up_to_lanes<T>(columns)) {}
};

// Lanes of the vector at index `first` that lie at or after `from`.
template <typename T>
REPSIM_INLINE IntegerVec<T> lanes_from(int64_t from, int64_t first) {
  return lane_numbers<T>() >= static_cast<Integer<T>>(from - first);
}
template <typename T>
REPSIM_INLINE Vec<T> keep_from(Vec<T> x, int64_t from, int64_t first) {
  return lanes_from<T>(from, first) ? x : Vec<T>{};
}

// The entries of z from index k on become u = (1, scale * tail).
template <typename T>
REPSIM_INLINE void scale_reflector(T* z, int64_t k, int64_t end, T scale) {
  const int64_t first = k / kLanes<T> * kLanes<T>;
  for (int64_t i = first; i < end; i += kLanes<T>) store<T>(z + i, load(z + i) * broadcast(scale));
  z[k] = T{1};
}

// One step's vectors.
template <typename T>
struct RankTwo {
  T *u, *x;  // (column pitch,)
  T *y, *v;  // (row pitch,)
};

// Columns first .. of a -= u y^T + x v^T of the last step; y = A^T u and row = A[k] of this one.
template <typename T>
void update_and_multiply(T* a, const AlonePitches<T>& pitch, int64_t k, const RankTwo<T>& last,
                         const T* u, T* y, T* row) {
  const int64_t first_row = k / kLanes<T> * kLanes<T>;
  for (int64_t j = (k + 1) / kColumnsAtOnce * kColumnsAtOnce; j < pitch.columns;
       j += kColumnsAtOnce) {
    T* column[kColumnsAtOnce];
    Vec<T> sum[kColumnsAtOnce] = {}, last_y[kColumnsAtOnce], last_v[kColumnsAtOnce];
#pragma GCC unroll 4
    for (int c = 0; c < kColumnsAtOnce; ++c) {
      column[c] = a + (j + c) * pitch.column;
      last_y[c] = broadcast(last.y[j + c]);
      last_v[c] = broadcast(last.v[j + c]);
    }
    for (int64_t i = first_row; i < pitch.column; i += kLanes<T>) {
      const Vec<T> ui = load(u + i), last_u = load(last.u + i), last_x = load(last.x + i);
#pragma GCC unroll 4
      for (int c = 0; c < kColumnsAtOnce; ++c) {
        const Vec<T> entry = load(column[c] + i) - last_u * last_y[c] - last_x * last_v[c];
        store<T>(column[c] + i, entry);
        sum[c] += entry * ui;
      }
    }
    sum_lanes_of_four<T>(sum, y + j);
    for (int c = 0; c < kColumnsAtOnce; ++c) row[j + c] = column[c][k];
  }
}

// x += A v over rows and columns after k.
template <typename T>
void multiply_row(const T* a, const AlonePitches<T>& pitch, int64_t k, const T* v, T* x) {
  const int64_t first_row = (k + 1) / kLanes<T> * kLanes<T>;
  for (int64_t j = (k + 1) / kColumnsAtOnce * kColumnsAtOnce; j < pitch.columns;
       j += kColumnsAtOnce) {
    const T* column[kColumnsAtOnce];
    Vec<T> factor[kColumnsAtOnce];
#pragma GCC unroll 4
    for (int c = 0; c < kColumnsAtOnce; ++c) {
      column[c] = a + (j + c) * pitch.column;
      factor[c] = broadcast(v[j + c]);
    }
    for (int64_t i = first_row; i < pitch.column; i += kLanes<T>) {
      Vec<T> sum = load(x + i);
#pragma GCC unroll 4
      for (int c = 0; c < kColumnsAtOnce; ++c) sum += load(column[c] + i) * factor[c];
      store<T>(x + i, sum);
    }
  }
}

// Column k with its delayed update, and the reflector that clears it below the diagonal; u as it is
// applied.
template <typename T>
Reflector<T> clear_column(T* a, const AlonePitches<T>& pitch, int64_t k, const RankTwo<T>& last,
                          T* u) {
  T* column = a + k * pitch.column;
  const Vec<T> last_y = broadcast(last.y[k]), last_v = broadcast(last.v[k]);
  Vec<T> tail_square{};
  for (int64_t i = k / kLanes<T> * kLanes<T>; i < pitch.column; i += kLanes<T>) {
    const Vec<T> entry = load(column + i) - load(last.u + i) * last_y - load(last.x + i) * last_v;
    store<T>(column + i, entry);
    const Vec<T> tail = keep_from<T>(entry, k + 1, i);
    store<T>(u + i, tail);
    tail_square += tail * tail;
  }
  const Reflector<T> reflector = make_reflector(column[k], sum_lanes<T>(tail_square));
  scale_reflector(u, k, pitch.column, reflector.scale);
  return reflector;
}

template <typename T>
int64_t bidiagonalise_alone_workspace(const AlonePitches<T>& pitch) {
  return 4 * pitch.column + 5 * pitch.row;
}

// The triangle of a's QR factorisation into r, whose pitches are those of a square matrix. a
// (column pitch, columns pitch) is overwritten.
template <typename T>
void triangularise_alone(T* a, const AlonePitches<T>& pitch, int64_t columns, T* r,
                         const AlonePitches<T>& r_pitch, T* workspace) {
  std::fill_n(workspace, bidiagonalise_alone_workspace(pitch), T{0});
  std::fill_n(r, r_pitch.column * r_pitch.columns, T{0});
  T* next = workspace;
  const auto take = [&](int64_t count) { return std::exchange(next, next + count); };
  RankTwo<T> last{take(pitch.column), take(pitch.column), take(pitch.row), take(pitch.row)};
  T *u = take(pitch.column), *y = take(pitch.row), *row = take(pitch.row);
  for (int64_t k = 0; k < columns; ++k) {
    const Reflector<T> reflector = clear_column(a, pitch, k, last, u);
    r[k * r_pitch.column + k] = reflector.beta;
    if (k + 1 == columns) break;
    update_and_multiply(a, pitch, k, last, u, y, row);
    for (int64_t j = k + 1; j < columns; ++j) {
      y[j] *= reflector.tau;
      r[j * r_pitch.column + k] = row[j] - y[j];
    }
    std::swap(u, last.u);
    std::swap(y, last.y);  // last.x and last.v stay zero
  }
}

// a (column pitch, columns pitch) is overwritten; rows >= columns >= 1.
template <typename T>
void bidiagonalise_alone(T* a, const AlonePitches<T>& pitch, int64_t columns, T* diagonal,
                         T* above,  // (columns,), (columns - 1,)
                         T* workspace) {
  std::fill_n(workspace, bidiagonalise_alone_workspace(pitch), T{0});
  T* next = workspace;
  const auto take = [&](int64_t count) { return std::exchange(next, next + count); };
  RankTwo<T> now{take(pitch.column), take(pitch.column), take(pitch.row), take(pitch.row)};
  RankTwo<T> last{take(pitch.column), take(pitch.column), take(pitch.row), take(pitch.row)};
  T* row = take(pitch.row);

  for (int64_t k = 0; k < columns; ++k) {
    const Reflector<T> left = clear_column(a, pitch, k, last, now.u);
    diagonal[k] = left.beta;
    if (k + 1 == columns) break;

    update_and_multiply(a, pitch, k, last, now.u, now.y, row);

    // Row k after the left reflector, and the reflector that clears it beyond the superdiagonal.
    const int64_t first_column = first_of_row<T>(k + 1);
    Vec<T> tail_square{};
    for (int64_t j = first_column; j < pitch.row; j += kLanes<T>) {
      const Vec<T> y = keep_from<T>(load(now.y + j) * broadcast(left.tau), k + 1, j);
      const Vec<T> entry = load(row + j) - y;
      store<T>(now.y + j, y);
      store<T>(row + j, entry);
      const Vec<T> tail = keep_from<T>(entry, k + 2, j);
      store<T>(now.v + j, tail);
      tail_square += tail * tail;
    }
    const Reflector<T> right = make_reflector(row[k + 1], sum_lanes<T>(tail_square));
    above[k] = right.beta;
    scale_reflector(now.v, k + 1, pitch.row, right.scale);

    // x = tau (A - u y^T) v
    Vec<T> y_v{};
    for (int64_t j = first_column; j < pitch.row; j += kLanes<T>) {
      y_v += load(now.y + j) * load(now.v + j);
    }
    const Vec<T> minus_y_v = broadcast(-sum_lanes<T>(y_v));
    const int64_t first_row = (k + 1) / kLanes<T> * kLanes<T>;
    for (int64_t i = first_row; i < pitch.column; i += kLanes<T>) {
      const Vec<T> u = keep_from<T>(load(now.u + i), k + 1, i);
      store<T>(now.u + i, u);
      store<T>(now.x + i, u * minus_y_v);
    }
    multiply_row(a, pitch, k, now.v, now.x);
    for (int64_t i = first_row; i < pitch.column; i += kLanes<T>) {
      store<T>(now.x + i, keep_from<T>(load(now.x + i) * broadcast(right.tau), k + 1, i));
    }
    std::swap(now, last);
  }
}

// With more rows than this many times the columns, a triangle first costs fewer operations (Chan
// 1982).
constexpr double kTall = 5.0 / 3.0;

template <typename T>
int64_t values_alone_workspace(int64_t rows, int64_t columns) {
  const AlonePitches<T> pitch(rows, columns), square(columns, columns);
  return pitch.column * pitch.columns + square.column * square.columns + 2 * pitch.row +
         std::max(bidiagonalise_alone_workspace(pitch),
                  bidiagonal_values_workspace<T, false>(columns));
}

template <typename T>
void values_alone(const MatrixView<const T>& matrix, T* workspace, T* values) {
  const int64_t columns = matrix.columns;
  const AlonePitches<T> pitch(matrix.rows, columns), square(columns, columns);
  T* a = workspace;
  T* triangle = a + pitch.column * pitch.columns;
  T* diagonal = triangle + square.column * square.columns;
  T* above = diagonal + pitch.row;
  T* rest = above + pitch.row;
  load_columns(matrix, a, pitch.column, pitch.columns);
  const Balance<T> balance = balance_one(a, pitch.column * pitch.columns);
  if (!balance.finite) {
    std::fill_n(values, columns, std::numeric_limits<T>::quiet_NaN());
    return;
  }
  if (static_cast<double>(matrix.rows) > kTall * static_cast<double>(columns)) {
    triangularise_alone(a, pitch, columns, triangle, square, rest);
    bidiagonalise_alone(triangle, square, columns, diagonal, above, rest);
  } else {
    bidiagonalise_alone(a, pitch, columns, diagonal, above, rest);
  }
  bidiagonal_values<T, false>(diagonal, above, columns, values, rest);
  const T unscale = T{1} / balance.scale;
  for (int64_t j = 0; j < columns; ++j) values[j] *= unscale;
}
