// Moves a godwit_synth device's state to another on the same kernel through PRE_COPY, by plain
// system calls: reads until there is nothing now, again after GET_PRECOPY_INFO has made more, then
// STOP_COPY to the end; every byte is written to the second device, whose driver checks it.
//
//   synth_precopy SOURCE TARGET
//
// Both are device folders, /sys/bus/mdev/devices/UUID. The source's switches are as the caller set
// them, but for those that this program is about.

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <exception>
#include <iostream>
#include <string>
#include <vector>

#include "raw_device.h"

namespace godwit::lab {
namespace {

constexpr uint32_t kRegisters = 16;
constexpr int kRounds = 4;
constexpr uint64_t kMiB = 1 << 20;

// From one data_fd to another.
class Mover {
 public:
  Mover(int from, int to) : from_(from), to_(to), buffer_(kMiB) {}

  // Until a read gives no data; returns the errno of that read, 0 for an empty one.
  int MoveWhatThereIs() {
    for (;;) {
      const ssize_t bytes = read(from_, buffer_.data(), buffer_.size());
      if (bytes <= 0) return bytes < 0 ? errno : 0;
      Write(static_cast<size_t>(bytes));
      bytes_ += static_cast<uint64_t>(bytes);
      ++reads_;
    }
  }

  uint64_t bytes() const { return bytes_; }
  uint64_t reads() const { return reads_; }

 private:
  void Write(size_t bytes) {
    for (size_t done = 0; done < bytes;) {
      const ssize_t written = write(to_, buffer_.data() + done, bytes - done);
      Expect(written > 0, std::string("the target refuses its stream: ") + std::strerror(errno));
      done += static_cast<size_t>(written);
    }
  }

  const int from_;
  const int to_;
  std::vector<char> buffer_;
  uint64_t bytes_ = 0;
  uint64_t reads_ = 0;
};

RawPrecopyInfo PrecopyInfo(int data_fd) {
  RawPrecopyInfo info = {};
  const int error = GetPrecopyInfo(data_fd, &info);
  Expect(error == 0, std::string("GET_PRECOPY_INFO: ") + std::strerror(error));
  return info;
}

struct Case {
  std::string name;
  std::string initial_bytes;
  std::string dirty_per_info;
  std::string empty_is_enomsg;
  std::string read_bytes_max;
};

void SetUp(const std::string& source, const Case& what) {
  WriteAttribute(source, "synth/precopy_initial_bytes", what.initial_bytes);
  WriteAttribute(source, "synth/dirty_bytes_per_info", what.dirty_per_info);
  WriteAttribute(source, "synth/empty_is_enomsg", what.empty_is_enomsg);
  WriteAttribute(source, "synth/read_bytes_max", what.read_bytes_max);
}

// One session in PRE_COPY: what is read, what is told, and what "nothing now" looks like.
void PreCopy(const RawDevice& source, int saving, const Case& what, Mover& mover) {
  const int nothing_now = what.empty_is_enomsg == "1" ? ENOMSG : 0;
  const uint64_t dirty = std::stoull(what.dirty_per_info);

  const RawPrecopyInfo first = PrecopyInfo(saving);
  Expect(first.initial_bytes >= std::stoull(what.initial_bytes), "initial_bytes is too small");
  // What that call dirtied comes with the rest.
  Expect(mover.MoveWhatThereIs() == nothing_now, "'nothing now' is not told as it was chosen");
  Expect(mover.bytes() == first.initial_bytes + first.dirty_bytes,
         "initial_bytes was not what came");
  for (int round = 0; round < kRounds; ++round) {
    Expect(mover.MoveWhatThereIs() == nothing_now, "data with nothing new");
    const uint64_t before = mover.bytes();
    const RawPrecopyInfo info = PrecopyInfo(saving);
    Expect(info.initial_bytes == 0, "initial_bytes after all was read");
    Expect((info.dirty_bytes > 0) == (dirty > 0), "dirty_bytes is not as it was chosen");
    Expect(mover.MoveWhatThereIs() == nothing_now, "'nothing now' is not told as it was chosen");
    Expect(mover.bytes() - before == info.dirty_bytes, "dirty_bytes was not what came");
  }
  Expect(source.SetState(kPreCopyP2p) == 0, "no way to PRE_COPY_P2P");
  PrecopyInfo(saving);  // leaves dirty bytes for STOP_COPY
}

void Move(const RawDevice& source, const RawDevice& target, const Case& what) {
  source.Reset();
  target.Reset();
  SetUp(source.path(), what);
  for (uint32_t i = 0; i < kRegisters; ++i) source.WriteBar(4 * i, 0x01010101 * (i + 3));

  UniqueFd saving, loading;
  Expect(source.SetState(kPreCopy, &saving) == 0 && saving.valid(), "no PRE_COPY");
  Expect(target.SetState(kResuming, &loading) == 0 && loading.valid(), "no RESUMING");
  Mover mover(saving.get(), loading.get());
  PreCopy(source, saving.get(), what, mover);
  const uint64_t precopy_bytes = mover.bytes();

  // Written while it runs: it is the last that counts.
  source.WriteBar(0, 77);
  Expect(source.SetState(kStopCopy) == 0, "no STOP_COPY");
  RawPrecopyInfo info = {};
  Expect(GetPrecopyInfo(saving.get(), &info) == EINVAL, "GET_PRECOPY_INFO works in STOP_COPY");
  const uint64_t left = source.StopCopyBytes();
  Expect(mover.MoveWhatThereIs() == 0, "STOP_COPY ends with an error");
  Expect(mover.MoveWhatThereIs() == 0, "the end is no end");
  const uint64_t stop_copy_bytes = mover.bytes() - precopy_bytes;
  Expect(left >= stop_copy_bytes && left <= stop_copy_bytes + 64, "MIG_DATA_SIZE was far off");
  Expect(source.SetState(kStop) == 0, "no STOP");
  Expect(read(saving.get(), &info, sizeof(info)) < 0 && errno == ENODEV,
         "the stream outlives STOP");

  Expect(ReadAttribute(target.path(), "synth/loaded_ok") == "0", "loaded before its last arc");
  Expect(target.SetState(kStop) == 0, "the target refuses what it loaded");
  Expect(ReadAttribute(target.path(), "synth/loaded_ok") == "1",
         "the target says it has not loaded");
  for (const char* name : {"synth/seed", "synth/size_bytes", "synth/registers"}) {
    Expect(ReadAttribute(source.path(), name) == ReadAttribute(target.path(), name),
           std::string("the target differs in ") + name);
  }
  Expect(target.ReadBar(0) == 77 && target.ReadBar(4) == 0x04040404, "the BAR's registers are old");
  std::cout << what.name << ": " << precopy_bytes << " bytes in PRE_COPY, " << stop_copy_bytes
            << " in STOP_COPY, " << mover.reads() << " reads\n";
}

bool CanBePolled(int fd) {
  const UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  epoll_event event = {};
  return epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd, &event) == 0;
}

short Poll(int fd, int timeout_ms) {
  pollfd entry = {.fd = fd, .events = POLLIN, .revents = 0};
  return poll(&entry, 1, timeout_ms) > 0 ? entry.revents : short{0};
}

// A stream that has poll, and one that hasn't; data that comes by time.
void PollAndBlock(const RawDevice& source) {
  const std::string& path = source.path();
  WriteAttribute(path, "synth/size_bytes", "100000");
  SetUp(path, {"", "1000", "0", "1", "0"});
  std::vector<char> buffer(kMiB);
  UniqueFd saving;

  source.Reset();
  WriteAttribute(path, "synth/poll", "0");
  Expect(source.SetState(kPreCopy, &saving) == 0, "no PRE_COPY");
  Expect(!CanBePolled(saving.get()), "a stream without poll takes part in epoll");

  source.Reset();
  WriteAttribute(path, "synth/poll", "1");
  WriteAttribute(path, "synth/read_blocks", "1");
  Expect(source.SetState(kPreCopy, &saving) == 0, "no PRE_COPY");
  Expect(CanBePolled(saving.get()), "a stream with poll takes no part in epoll");
  Expect(Poll(saving.get(), 0) == POLLIN, "initial bytes are not readable");
  Expect(read(saving.get(), buffer.data(), buffer.size()) > 1000, "initial bytes don't come");
  Expect(Poll(saving.get(), 50) == 0, "readable with nothing there");
  fcntl(saving.get(), F_SETFL, O_NONBLOCK);
  Expect(read(saving.get(), buffer.data(), 1) < 0 && errno == EAGAIN, "no EAGAIN");

  fcntl(saving.get(), F_SETFL, 0);
  WriteAttribute(path, "synth/dirty_bytes_per_s", "100000");
  Expect(Poll(saving.get(), 5000) == POLLIN, "dirty bytes don't wake poll");
  Expect(read(saving.get(), buffer.data(), buffer.size()) > 0, "dirty bytes don't come");
  Expect(read(saving.get(), buffer.data(), buffer.size()) > 0, "a blocking read does not wait");
  WriteAttribute(path, "synth/force_error", "1");
  Expect((Poll(saving.get(), 5000) & POLLIN) != 0, "a dead stream is not readable");
  Expect(read(saving.get(), buffer.data(), 1) < 0 && errno == ENODEV, "a dead stream lives");
  Expect(source.State() == kError && source.SetState(kRunning) == EIO, "ERROR is no error");
  source.Reset();
  Expect(source.State() == kRunning, "reset does not lead out of ERROR");
  for (const char* name : {"synth/poll", "synth/read_blocks", "synth/dirty_bytes_per_s"}) {
    WriteAttribute(path, name, "0");
  }
  std::cout << "poll, blocking reads, ERROR: as documented\n";
}

void Run(const std::string& source_path, const std::string& target_path) {
  const RawDevice source(source_path);
  const RawDevice target(target_path);
  const std::string size = ReadAttribute(source_path, "synth/size_bytes");
  const std::vector<Case> cases = {
      {"ENOMSG, dirty on asking", "3000000", "500000", "1", "0"},
      {"0, dirty on asking", "3000000", "500000", "0", "0"},
      {"all in PRE_COPY, never dirty", size, "0", "1", "0"},
      {"nothing but the head in PRE_COPY", "0", "0", "1", "0"},
      {"short reads of 4093 bytes", "100000", "70001", "1", "4093"},
  };
  for (const Case& what : cases) Move(source, target, what);
  WriteAttribute(source_path, "synth/size_bytes", "1");
  for (const char* read_bytes_max : {"1", "7", "0"}) {
    Move(source, target,
         {std::string("a state of 1 byte, reads of ") + read_bytes_max, "1", "3", "1",
          read_bytes_max});
  }
  PollAndBlock(source);
}

}  // namespace
}  // namespace godwit::lab

int main(int argc, char** argv) try {
  if (argc != 3) {
    std::cerr << "usage: synth_precopy SOURCE TARGET\n";
    return 2;
  }
  godwit::lab::Run(argv[1], argv[2]);
  return 0;
} catch (const std::exception& error) {
  std::cerr << "synth_precopy: " << error.what() << '\n';
  return 1;
}
