// Reads one device's stream into packets.
#ifndef GODWIT_ENGINE_STATE_READER_H_
#define GODWIT_ENGINE_STATE_READER_H_

#include <absl/status/status.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/arena.h"
#include "base/clock.h"
#include "base/fixed_queue.h"
#include "base/io_ring.h"
#include "engine/packet.h"
#include "godwit/device.h"
#include "godwit/statistics.h"
#include "godwit/unique_fd.h"

namespace godwit {

// A hard-linked chain of reads into successive buffers keeps the device busy without a round trip
// through us, and still has only one read in flight at a time: the kernel starts each when the one
// before has completed. Short reads make short packets.
//
// A file in memory gives its bytes by a copy, and waits for nothing. With few processors to run on
// it costs less when the thread that sends a packet has just read it, while it is in that
// processor's cache, than when one of the kernel's does: ReadAtOnce().
//
// Ownership: owns the data_fd, the buffers being read into and the packets not yet popped.
// Threads:   single-threaded, the ring's thread.
// Blocking:  never, but for the copy of ReadAtOnce().
// Errors:    the first is final: status() has it, nothing more is read, packets that were read
//            before it can still be popped.
class StateReader final : IoRing::Op {
 public:
  // `device` is the number in packets; `name` is for messages. `chain_packets` reads a chain of at
  // most `packet_bytes` each. `state` is the device's: PRE_COPY or STOP_COPY. Without `crc` the
  // CRCs in its packets are 0.
  StateReader(uint16_t device, std::string name, UniqueFd data_fd, size_t packet_bytes,
              uint32_t chain_packets, IoRing& ring, Arena& arena,
              DeviceState state = DeviceState::kStopCopy, bool crc = true);
  // REQUIRES: idle()
  ~StateReader();
  StateReader(const StateReader&) = delete;
  StateReader& operator=(const StateReader&) = delete;

  // Lets ReadAtOnce() read, where the stream is a file in memory, and in STOP_COPY.
  void LetWorkerRead();
  // Where the spans of its reads go; null: nowhere.
  void SetTrace(TraceSink* trace) { trace_ = trace; }

  // Starts the next chain if the last one is done, the stream goes on and isn't dry, there are free
  // buffers and the packets of the last chain but one have been popped. Each of its packets has at
  // most `packet_bytes`, or what the constructor had if that is less. Returns whether it did.
  bool Pump(size_t packet_bytes);
  bool Pump() { return Pump(packet_bytes_); }
  // Whether packets are to be read by ReadAtOnce() in place of Pump(). Not for some packets after a
  // read that took its time.
  bool reads_at_once() const { return may_read_at_once_ && left_packets_ == 0; }
  // Reads a packet of at most `packet_bytes` on this thread; waits for no chain. Returns whether it
  // tried: not without a free buffer, room for the packet, and a stream that goes on.
  // REQUIRES: reads_at_once()
  bool ReadAtOnce(size_t packet_bytes);

  // The stream's end has been read.
  bool ended() const { return ended_; }
  bool in_pre_copy() const { return state_ != DeviceState::kStopCopy; }
  // In PRE_COPY the last chain ended with "nothing now": nothing is read before ReadAgain().
  bool dry() const { return dry_; }
  void ReadAgain() { dry_ = false; }
  // The device is in STOP_COPY now; the stream goes on where it was. REQUIRES: idle()
  void EnterStopCopy();

  bool has_packet() const { return !ready_.empty(); }
  // The oldest packet. Its header has everything but lane_sequence. REQUIRES: has_packet()
  Packet& front() { return ready_.front(); }
  // Once its buffer has been taken. REQUIRES: has_packet()
  void DropFront() { ready_.DropFront(); }
  // REQUIRES: has_packet()
  Packet PopPacket() { return ready_.Pop(); }

  // The stream is complete, and all its packets have been popped.
  bool finished() const { return ended_ && ready_.empty() && idle(); }
  // Makes the packet that closes the stream. REQUIRES: finished(), called once, `buffer` has room
  // for kConfigPayloadBytesMax, config.size() <= kConfigBytesMax
  Packet MakeConfigPacket(absl::string_view config, Buffer buffer);

  // Stops reading for good; bytes of reads under way are lost. The kernel cancels the read that is
  // in flight, and the chain, being hard-linked, goes on with its next one: call again until
  // idle().
  void Cancel();
  // No read is in flight.
  bool idle() const { return chain_.empty(); }

  const absl::Status& status() const { return status_; }
  uint64_t stream_bytes() const { return stream_bytes_; }
  uint32_t stream_crc() const { return stream_crc_; }
  uint32_t packets() const { return next_index_; }

 private:
  bool MayRead() const;
  void OnComplete(int result) override;
  void SetNonBlocking(bool on);
  void TakeData(Buffer& buffer, size_t bytes);
  void TraceRead(uint64_t bytes);

  const uint16_t device_;
  const std::string name_;
  const UniqueFd data_fd_;
  const size_t packet_bytes_;
  const uint32_t chain_packets_;
  const bool polled_well_;
  const bool crc_;
  IoRing& ring_;
  Arena& arena_;

  FixedQueue<Buffer> chain_;  // being read into, in the order of the chain
  FixedQueue<Packet> ready_;  // two chains' worth
  uint64_t stream_bytes_ = 0;
  uint32_t stream_crc_ = 0;  // stays 0 without crc_
  uint32_t next_index_ = 0;
  TraceSink* trace_ = nullptr;
  Clock::Duration read_began_{0};  // only for a trace
  DeviceState state_;
  bool may_read_at_once_ = false;
  uint32_t left_packets_ = 0;  // that are left to the ring before the worker reads again
  bool dry_ = false;
  bool ended_ = false;
  bool cancelled_ = false;
  absl::Status status_;
};

}  // namespace godwit

#endif  // GODWIT_ENGINE_STATE_READER_H_
