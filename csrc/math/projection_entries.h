// Attack steps and projections of one entry, or of a vector of entries lane by lane. Included by
// projection.h, and once more by the kernels of each instruction set, within their namespace, so
// that functions of its vectors are compiled for it; hence no include guard, and no includes.

template <typename V>
REPSIM_ENTRY V clip(V value, V low, V high) {
  value = value < low ? low : value;
  return value > high ? high : value;
}

// Never -0, whose bits would not be ordered like a number's.
template <typename V>
REPSIM_ENTRY V magnitude(V value) {
  return value > V{} ? value : V{} - value;
}

// A gradient entry that can be computed with: NaN becomes 0, infinity the largest number, T's.
template <typename T, typename V>
REPSIM_ENTRY V finite(V gradient) {
  const V largest = V{} + Largest<T>::value;
  gradient = gradient == gradient ? gradient : V{};
  return clip<V>(gradient, -largest, largest);
}

// adv + size * sign(gradient), projected on the Linf ball and then on the box: the projection on
// their intersection. sign(NaN) is 0.
template <typename V>
REPSIM_ENTRY V linf_entry(V adv, V gradient, V x, V size, V eps, V low, V high) {
  V move = gradient > V{} ? size : V{};
  move = gradient < V{} ? -size : move;
  return clip<V>(clip<V>(adv + move, x - eps, x + eps), low, high);
}

// An entry of the L2 ball: u = v - x scaled by factor, 1 where the row lies inside, which keeps the
// bits of v. Clipped in either order of ball and box: rounding may leave the box by a bit.
template <typename V>
REPSIM_ENTRY V l2_entry(V v, V x, V factor, V low, V high) {
  const V scaled = x + (v - x) * factor;
  return clip<V>(factor == V{} + 1 ? v : scaled, low, high);
}

// What the box leaves an entry with u = adv - x on u's side.
template <typename V>
REPSIM_ENTRY V room(V u, V x, V low, V high) {
  const V left = u >= V{} ? high - x : x - low;
  return left > V{} ? left : V{};
}

// min(max(|u| - threshold, 0), room), the threshold given in two parts so that float entries see
// a threshold finer than a float. NaN stays NaN.
template <typename V>
REPSIM_ENTRY V shrink(V length, V room, V threshold, V threshold_rest) {
  const V rest = (length - threshold) - threshold_rest;
  const V positive = rest < V{} ? V{} : rest;
  return positive > room ? room : positive;
}

// x + sign(u) shrink(|u|, ...); an entry that does not change keeps the bits of adv. Clipped, as
// x + (high - x) may miss high by a rounding.
template <typename V>
REPSIM_ENTRY V l1_entry(V adv, V x, V threshold, V threshold_rest, V low, V high) {
  const V u = adv - x, length = magnitude<V>(u);
  const V shrunk = shrink<V>(length, room<V>(u, x, low, high), threshold, threshold_rest);
  const V moved = x + (u < V{} ? -shrunk : shrunk);
  return clip<V>(shrunk == length ? adv : moved, low, high);
}

// |gradient|, by which an L1 step chooses its entries, or 0 where the box is in the way. sign is 1,
// or -1 to descend.
template <typename T, typename V>
REPSIM_ENTRY V l1_size(V adv, V gradient, V sign, V low, V high) {
  const V g = finite<T, V>(gradient) * sign;
  return room<V>(g, adv, low, high) > V{} ? magnitude<V>(g) : V{};
}

// adv moved by `size` along the gradient's sign if the entry's l1_size is at least `least`.
template <typename V>
REPSIM_ENTRY V l1_moved(V adv, V gradient, V l1_size, V least, V size) {
  const V move = gradient < V{} ? -size : size;
  return adv + (l1_size >= least ? move : V{});
}
