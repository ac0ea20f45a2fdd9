// LAPACK inside of one of our threads, with no threads of its own.
#pragma once

// Of MKL, where torch was built with it; null elsewhere. It returns what was set before, 0 for
// nothing.
extern "C" int MKL_Set_Num_Threads_Local(int threads) __attribute__((weak));

namespace repsim_fast {

// torch.set_num_threads(n) makes MKL start n threads also inside of a parallel region, where OpenMP
// gives it one: a factorisation of a tall matrix then waits for the others forever. Other libraries
// see for themselves that they are in such a region.
class LibraryAlone {
 public:
  LibraryAlone() : before_(MKL_Set_Num_Threads_Local ? MKL_Set_Num_Threads_Local(1) : 0) {}
  ~LibraryAlone() {
    if (MKL_Set_Num_Threads_Local) MKL_Set_Num_Threads_Local(before_);
  }
  LibraryAlone(const LibraryAlone&) = delete;
  LibraryAlone& operator=(const LibraryAlone&) = delete;

 private:
  int before_;
};

}  // namespace repsim_fast
