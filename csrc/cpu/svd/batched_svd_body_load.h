// Reading matrices into the two layouts, and scaling them there (part of batched_svd_body.h).

// What a matrix was multiplied by, and whether it was finite.
template <typename T>
struct Balance {
  T scale;
  bool finite;
};

// to[j * pitch + i] = matrix(i, j); rows up to pitch and columns up to `columns` become zero.
template <typename T>
void load_columns(const MatrixView<const T>& matrix, T* to, int64_t pitch, int64_t columns) {
  constexpr int64_t kSide = kLanes<T>;
  for (int64_t j = 0; j < columns; ++j) {
    const int64_t filled = j < matrix.columns ? matrix.rows : 0;
    std::fill(to + j * pitch + filled, to + (j + 1) * pitch, T{0});
  }
  const auto copy = [&](int64_t first_row, int64_t first_column, int64_t rows, int64_t columns) {
    for (int64_t j = first_column; j < first_column + columns; ++j) {
      for (int64_t i = first_row; i < first_row + rows; ++i) to[j * pitch + i] = matrix(i, j);
    }
  };
  if (matrix.column_stride != 1 || matrix.row_stride == 1) {
    copy(0, 0, matrix.rows, matrix.columns);
    return;
  }
  const int64_t square_rows = matrix.rows / kSide * kSide;
  const int64_t square_columns = matrix.columns / kSide * kSide;
  for (int64_t i = 0; i < square_rows; i += kSide) {
    for (int64_t j = 0; j < square_columns; j += kSide) {
      Vec<T> square[kSide];
#pragma GCC unroll 16
      for (int r = 0; r < kSide; ++r) square[r] = load(&matrix(i + r, j));
      transpose_square<T>(square);
#pragma GCC unroll 16
      for (int c = 0; c < kSide; ++c) store(to + (j + c) * pitch + i, square[c]);
    }
  }
  copy(square_rows, 0, matrix.rows - square_rows, square_columns);
  copy(0, square_columns, matrix.rows, matrix.columns - square_columns);
}

// Scales `count` entries, a multiple of the lanes, of one matrix.
template <typename T>
Balance<T> balance_one(T* entries, int64_t count) {
  Vec<T> largest{}, invalid{};
  for (int64_t i = 0; i < count; i += kLanes<T>) {
    const Vec<T> x = load(entries + i), size = absolute<T>(x);
    largest = size > largest ? size : largest;
    invalid += x - x;  // NaN for NaN and for infinity
  }
  T maximum = 0;
  for (int l = 0; l < kLanes<T>; ++l) maximum = std::max(maximum, largest[l]);
  const T none = sum_lanes<T>(invalid);
  if (none != T{0}) return {T{1}, false};
  const T scale = balancing_scale(maximum);
  for (int64_t i = 0; i < count; i += kLanes<T>) {
    store<T>(entries + i, load(entries + i) * broadcast(scale));
  }
  return {scale, true};
}

// Entry (i, j) of matrix l goes to to[(j * rows + i) * lanes + l]; all else becomes zero. No matrix
// has more than rows x columns.
template <typename T>
void load_together(const MatrixView<const T>* matrices, int64_t count, int64_t rows,
                   int64_t columns, T* to) {
  constexpr int64_t kSide = kLanes<T>;
  bool alike = true;
  for (int64_t l = 0; l < count; ++l) {
    const MatrixView<const T>& a = matrices[l];
    alike = alike && a.rows == rows && a.columns == columns &&
            (a.column_stride == 1 || a.row_stride == 1) &&
            a.column_stride == matrices[0].column_stride && a.row_stride == matrices[0].row_stride;
  }
  const auto copy = [&](const MatrixView<const T>& a, int64_t l, int64_t first_row,
                        int64_t first_column) {
    for (int64_t j = first_column; j < a.columns; ++j) {
      for (int64_t i = first_row; i < a.rows; ++i) to[(j * rows + i) * kSide + l] = a(i, j);
    }
  };
  if (!alike || count < kSide) std::fill_n(to, rows * columns * kSide, T{0});
  if (!alike) {
    for (int64_t l = 0; l < count; ++l) copy(matrices[l], l, 0, 0);
    return;
  }
  // A square is as many entries, side by side in memory, of as many matrices.
  const bool by_rows = matrices[0].column_stride == 1;
  const int64_t length = by_rows ? columns : rows, lines = by_rows ? rows : columns;
  const int64_t line_stride = by_rows ? matrices[0].row_stride : matrices[0].column_stride;
  const int64_t line_step = by_rows ? kSide : rows * kSide;
  const int64_t entry_step = by_rows ? rows * kSide : kSide;
  const int64_t in_squares = length / kSide * kSide;
  for (int64_t line = 0; line < lines; ++line) {
    for (int64_t e = 0; e < in_squares; e += kSide) {
      Vec<T> square[kSide];
#pragma GCC unroll 16
      for (int l = 0; l < kSide; ++l) {
        square[l] = l < count ? load(matrices[l].data + line * line_stride + e) : Vec<T>{};
      }
      transpose_square<T>(square);
#pragma GCC unroll 16
      for (int k = 0; k < kSide; ++k) {
        store(to + line * line_step + (e + k) * entry_step, square[k]);
      }
    }
  }
  for (int64_t l = 0; l < count; ++l) {
    copy(matrices[l], l, by_rows ? 0 : in_squares, by_rows ? in_squares : 0);
  }
}

// Scales every lane of `count` interleaved entries; lanes that are not finite become zero.
template <typename T>
void balance_together(T* entries, int64_t count, Balance<T>* balances) {
  constexpr int64_t kSide = kLanes<T>;
  Vec<T> largest{}, invalid{}, scales{};
  for (int64_t i = 0; i < count; ++i) {
    const Vec<T> x = load(entries + i * kSide), size = absolute<T>(x);
    largest = size > largest ? size : largest;
    invalid += x - x;
  }
  for (int l = 0; l < kSide; ++l) {
    const bool finite = invalid[l] == T{0};
    balances[l] = {finite ? balancing_scale(T{largest[l]}) : T{1}, finite};
    scales[l] = balances[l].scale;
  }
  const auto finite = invalid == Vec<T>{};
  for (int64_t i = 0; i < count; ++i) {
    const Vec<T> x = load(entries + i * kSide) * scales;
    store<T>(entries + i * kSide, finite ? x : Vec<T>{});
  }
}
