// The system calls of a simulated run. libc.cc defines poll(2), pthread_create(3), clock_gettime(2)
// and the like for the whole program: called by a fiber they are the scheduler's and the network's,
// else the C library's. So the code under test is what runs in production, unchanged.
#ifndef GODWIT_TESTS_SIMULATION_LIBC_H_
#define GODWIT_TESTS_SIMULATION_LIBC_H_

#include <sys/socket.h>
#include <sys/types.h>

#include <cstddef>

namespace godwit::simulation {

class Network;

// The network that the fibers' sockets are of, until the next call, and how many processors their
// hosts have: not this machine's, so that a seed is the same run everywhere. Null: none.
void UseNetwork(Network* network, int processors = 1);

// What poll(2) says of `fd` now, simulated or not.
short PollNow(int fd, short events);
// One system call that does not wait, whatever the fd's mode: EAGAIN where it would.
ssize_t ReadNow(int fd, void* bytes, size_t count);
ssize_t ReceiveNow(int fd, void* bytes, size_t count);
// Of what `message` has from byte `skip` on; `total` becomes its size.
ssize_t SendNow(int fd, const msghdr& message, size_t skip, size_t& total);
bool IsNonBlocking(int fd);
// A pipe or a stream socket: where a read that takes less leaves the rest.
bool IsByteStream(int fd);

}  // namespace godwit::simulation

#endif  // GODWIT_TESTS_SIMULATION_LIBC_H_
