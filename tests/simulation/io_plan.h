// How the io_uring of a simulated run behaves.
#ifndef GODWIT_TESTS_SIMULATION_IO_PLAN_H_
#define GODWIT_TESTS_SIMULATION_IO_PLAN_H_

#include <cstddef>

#include "tests/simulation/scheduler.h"

namespace godwit::simulation {

struct IoPlan {
  Duration latency_max{20'000};  // an operation takes less; at least 1
  bool whole = false;         // a send takes all that there is room for; no signal ends one early
  bool watch_arenas = false;  // for ArenaUseOf(): asking an arena takes its lock, and so a turn
};

// For all rings, until the next call.
void UseIoPlan(const IoPlan& plan);

// Of the arena that the last ring of that host worked on.
struct ArenaUse {
  size_t buffers = 0;
  size_t most_used = 0;  // at once
};
ArenaUse ArenaUseOf(int host);

}  // namespace godwit::simulation

#endif  // GODWIT_TESTS_SIMULATION_IO_PLAN_H_
