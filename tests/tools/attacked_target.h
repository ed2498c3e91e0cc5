// A `godwit receive` to attack: a process of its own, whose memory and file descriptors count.
#ifndef GODWIT_TESTS_TOOLS_ATTACKED_TARGET_H_
#define GODWIT_TESTS_TOOLS_ATTACKED_TARGET_H_

#include <absl/strings/str_cat.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "godwit/unique_fd.h"

namespace godwit {

class AttackedTarget {
 public:
  // `psk_file`: "" for a plain session. The command is $GODWIT.
  AttackedTarget(const std::string& device, const std::string& psk_file)
      : stderr_(::memfd_create("stderr", MFD_CLOEXEC)) {
    const char* const command = std::getenv("GODWIT");
    std::array<int, 2> port{};
    EXPECT_EQ(::pipe2(port.data(), O_CLOEXEC), 0);
    UniqueFd read_end(port[0]);
    UniqueFd write_end(port[1]);
    std::vector<std::string> words = {command != nullptr ? command : "godwit",
                                      "receive",
                                      "--listen",
                                      "127.0.0.1:0",
                                      "--port-fd",
                                      "9",
                                      "--transport",
                                      "tcp",
                                      "--device",
                                      device};
    if (!psk_file.empty()) words.insert(words.end(), {"--psk-file", psk_file});
    std::vector<char*> arguments;
    arguments.reserve(words.size() + 1);
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::dup2(stderr_.get(), STDOUT_FILENO);
      ::dup2(stderr_.get(), STDERR_FILENO);
      ::dup2(write_end.get(), 9);
      ::execv(arguments[0], arguments.data());
      ::_exit(127);
    }
    write_end.Reset();
    std::string text;
    char c = 0;
    while (::read(read_end.get(), &c, 1) == 1 && c != '\n') text += c;
    port_ = static_cast<uint16_t>(std::atoi(text.c_str()));
    EXPECT_NE(port_, 0) << Said();
  }
  ~AttackedTarget() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    (void)Await();
  }
  AttackedTarget(const AttackedTarget&) = delete;
  AttackedTarget& operator=(const AttackedTarget&) = delete;

  uint16_t port() const { return port_; }
  // Looks at what it has now; the most of all looks counts.
  void Look() {
    size_t fds = 0;
    std::error_code error;
    for (std::filesystem::directory_iterator at(absl::StrCat("/proc/", pid_, "/fd"), error), end;
         !error && at != end; at.increment(error)) {
      ++fds;
    }
    fds_ = std::max(fds_, fds);
    std::ifstream status(absl::StrCat("/proc/", pid_, "/status"));
    for (std::string line; std::getline(status, line);) {
      constexpr std::string_view kHighWater = "VmHWM:";
      if (line.compare(0, kHighWater.size(), kHighWater) == 0) {
        rss_kib_ = std::max<size_t>(rss_kib_, std::strtoull(&line[kHighWater.size()], nullptr, 10));
      }
    }
  }
  size_t fds() const { return fds_; }
  size_t rss_mib() const { return rss_kib_ / 1024; }
  // Its exit code, or -1 and the signal that ended it.
  int Await() {
    int status = 0;
    EXPECT_EQ(::waitpid(pid_, &status, 0), pid_);
    pid_ = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }
  // The end of what it has said.
  std::string Said() const {
    constexpr off_t kBytesTold = 4'000;
    struct stat info {};
    ::fstat(stderr_.get(), &info);
    std::string text(static_cast<size_t>(std::min(info.st_size, kBytesTold)), '\0');
    const ssize_t got = ::pread(stderr_.get(), text.data(), text.size(),
                                std::max<off_t>(0, info.st_size - kBytesTold));
    text.resize(static_cast<size_t>(std::max<ssize_t>(got, 0)));
    return text;
  }
  size_t said_bytes() const {
    struct stat info {};
    ::fstat(stderr_.get(), &info);
    return static_cast<size_t>(info.st_size);
  }

 private:
  const UniqueFd stderr_;
  pid_t pid_ = 0;
  uint16_t port_ = 0;
  size_t fds_ = 0;
  size_t rss_kib_ = 0;
};

}  // namespace godwit

#endif  // GODWIT_TESTS_TOOLS_ATTACKED_TARGET_H_
