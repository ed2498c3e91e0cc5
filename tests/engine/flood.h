// Strangers who connect to a target as fast as they can, on a thread of their own.
#ifndef GODWIT_TESTS_ENGINE_FLOOD_H_
#define GODWIT_TESTS_ENGINE_FLOOD_H_

#include <absl/strings/string_view.h>
#include <sys/socket.h>

#include <atomic>
#include <chrono>
#include <deque>
#include <string>
#include <thread>
#include <utility>

#include "godwit/unique_fd.h"
#include "transport/tcp/tcp_socket.h"

namespace godwit {

// Each says `says`, and is held open until `held` newer ones are.
class Flood {
 public:
  Flood(uint16_t port, std::string says, size_t held)
      : thread_([this, port, says = std::move(says), held] {
          std::deque<UniqueFd> open;
          while (!over_) {
            auto socket = ConnectTcp({"127.0.0.1", port}, std::chrono::milliseconds(200));
            if (!socket.ok()) continue;  // no place in the queue, or the target has ended
            (void)::send(socket->get(), says.data(), says.size(), MSG_NOSIGNAL);
            open.push_back(*std::move(socket));
            if (open.size() > held) HangUp(open.front()), open.pop_front();
            ++connects_;
          }
        }) {}
  ~Flood() {
    over_ = true;
    thread_.join();
  }
  Flood(const Flood&) = delete;
  Flood& operator=(const Flood&) = delete;

  size_t connects() const { return connects_; }
  void AwaitConnects(size_t count) const {
    while (connects_ < count) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }

 private:
  // By a reset, which leaves no port behind that can't be used for a minute.
  static void HangUp(const UniqueFd& socket) {
    const linger at_once = {1, 0};
    (void)::setsockopt(socket.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
  }

  std::atomic<bool> over_{false};
  std::atomic<size_t> connects_{0};
  std::thread thread_;
};

}  // namespace godwit

#endif  // GODWIT_TESTS_ENGINE_FLOOD_H_
