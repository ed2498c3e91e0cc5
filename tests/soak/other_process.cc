#include "tests/soak/other_process.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <utility>

namespace godwit {

OtherProcess::OtherProcess(std::vector<std::string> arguments) {
  constexpr const char* kThisProgram = "/proc/self/exe";
  arguments.insert(arguments.begin(), "soak");
  std::vector<char*> argv;
  argv.reserve(arguments.size() + 1);
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  std::array<int, 2> pipe_fds = {};
  if (::pipe2(pipe_fds.data(), O_CLOEXEC) != 0) std::exit(2);
  output_ = UniqueFd(pipe_fds[0]);
  const UniqueFd its_end(pipe_fds[1]);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, its_end.get(), STDOUT_FILENO);
  const int error =
      ::posix_spawn(&pid_, kThisProgram, &actions, /*attrp=*/nullptr, argv.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  if (error == 0) return;
  std::fputs("this program can't be run once more\n", stderr);
  std::exit(2);
}

std::string OtherProcess::ReadLine() {
  std::string line;
  char byte = 0;
  while (::read(output_.get(), &byte, 1) == 1 && byte != '\n') line.push_back(byte);
  return line;
}

bool OtherProcess::Kill() {
  const pid_t pid = std::exchange(pid_, 0);
  if (pid == 0) return false;
  ::kill(pid, SIGKILL);
  int how = 0;
  return ::waitpid(pid, &how, 0) == pid && WIFSIGNALED(how);
}

}  // namespace godwit
