// SPDX-License-Identifier: GPL-2.0-only
/*
 * godwit_synth: a VFIO device for tests that is all migration. It looks like a PCI function with one
 * BAR, INTx and MSI, and has migration state of any size, made up as it is read and checked as it is
 * written. What drivers of real devices do now and then, it does on demand: see README.md.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/anon_inodes.h>
#include <linux/delay.h>
#include <linux/device.h>
#include <linux/err.h>
#include <linux/eventfd.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/interval_tree.h>
#include <linux/iova_bitmap.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/mdev.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pci_regs.h>
#include <linux/poll.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/sysfs.h>
#include <linux/uaccess.h>
#include <linux/unaligned.h>
#include <linux/version.h>
#include <linux/vfio.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

/* ---- The stream --------------------------------------------------------------------------- */

#define SYNTH_MAGIC 0x48544e5953574447ULL /* "GDWSYNTH" */
#define SYNTH_VERSION 1
#define SYNTH_REGISTERS 16
#define SYNTH_SIZE_MAX (2ULL << 30)
#define SYNTH_BOUNCE_BYTES SZ_64K
#define SYNTH_OFF U64_MAX

/* In the machine's own byte order, as every stream of the lab. */
struct synth_record {
	u32 type;
	u32 reserved;
	u64 bytes; /* that follow */
};

enum { SYNTH_BEGIN = 1, SYNTH_DATA = 2, SYNTH_END = 3 };

struct synth_begin {
	u64 magic;
	u32 version;
	u32 reserved;
	u64 seed;
	u64 size_bytes;
	u32 registers[SYNTH_REGISTERS]; /* as the device was opened for saving */
};

struct synth_end {
	u64 data_bytes; /* of all DATA records together */
	u32 registers[SYNTH_REGISTERS]; /* as the device was stopped */
};

#define SYNTH_BEGIN_BYTES (sizeof(struct synth_record) + sizeof(struct synth_begin))
#define SYNTH_END_BYTES (sizeof(struct synth_record) + sizeof(struct synth_end))
static_assert(SYNTH_BEGIN_BYTES >= SYNTH_END_BYTES);

/* The pattern: data byte `offset` of a session is one of the bytes of a hash of seed and offset / 8. */
static u64 pattern_word(u64 seed, u64 index)
{
	u64 x = (index + 1) * 0x9e3779b97f4a7c15ULL + seed;

	return (x ^ (x >> 29)) * 0xbf58476d1ce4e5b9ULL;
}

static u8 pattern_byte(u64 seed, u64 offset)
{
	return pattern_word(seed, offset / 8) >> (8 * (offset % 8));
}

static void pattern_fill(u8 *to, u64 seed, u64 offset, size_t bytes)
{
	for (; bytes && offset % 8; bytes--)
		*to++ = pattern_byte(seed, offset++);
	for (; bytes >= 8; bytes -= 8, to += 8, offset += 8)
		put_unaligned_le64(pattern_word(seed, offset / 8), to);
	for (; bytes; bytes--)
		*to++ = pattern_byte(seed, offset++);
}

static bool pattern_is(const u8 *from, u64 seed, u64 offset, size_t bytes)
{
	u64 difference = 0;

	for (; bytes && offset % 8; bytes--)
		difference |= *from++ ^ pattern_byte(seed, offset++);
	for (; bytes >= 8; bytes -= 8, from += 8, offset += 8)
		difference |= get_unaligned_le64(from) ^ pattern_word(seed, offset / 8);
	for (; bytes; bytes--)
		difference |= *from++ ^ pattern_byte(seed, offset++);
	return !difference;
}

/* ---- The device --------------------------------------------------------------------------- */

/* All u64, so that one pair of functions shows and stores them; see the table of attributes. */
struct synth_params {
	u64 seed;
	u64 size_bytes;
	u64 migration_flags;
	u64 dma_logging;
	u64 reset_on_open;
	u64 load_in_write;
	u64 accept_truncated;
	u64 precopy_initial_bytes;
	u64 dirty_bytes_per_s;
	u64 dirty_bytes_per_info;
	u64 dirty_bytes_max;
	u64 dirty_needs_info;
	u64 empty_is_enomsg;
	u64 poll;
	u64 read_blocks;
	u64 first_read_bytes;
	u64 read_bytes_max;
	u64 write_bytes_max;
	u64 read_delay_ms;
	u64 write_delay_ms;
	u64 read_error_at;
	u64 read_errno;
	u64 write_error_at;
	u64 write_errno;
	u64 error_skips;
	u64 corrupt_at;
	u64 truncate_at;
	u64 dma_page_bytes;
	u64 dma_report_errno;
};

struct synth_arc {
	u32 delay_ms;
	u32 error; /* positive errno, 0: none */
};

struct synth_stream;

struct synth_range { /* of IOVAs, both ends included */
	struct list_head entry;
	u64 first;
	u64 last;
};

#define SYNTH_ARC_LOG 32

struct synth_device {
	struct vfio_device vdev;

	/* Guards all that follows, and the streams' fields. Taken before nothing else. */
	struct mutex lock;
	bool is_open;
	enum vfio_device_mig_state state;
	struct synth_stream *stream; /* of the present session, NULL outside of one */
	struct synth_params params;
	struct synth_arc arcs[VFIO_DEVICE_STATE_NR][VFIO_DEVICE_STATE_NR];

	u32 registers[SYNTH_REGISTERS];
	u8 config[PCI_CFG_SPACE_SIZE];
	u8 config_writable[PCI_CFG_SPACE_SIZE]; /* bit by bit */
	struct eventfd_ctx *intx;
	struct eventfd_ctx *msi;
	bool intx_masked;

	bool dma_log_on;
	u64 dma_log_page_bytes;
	struct list_head dma_log_ranges;
	struct list_head dma_dirty;

	/* What tests ask about. */
	u64 bytes_read;
	u64 bytes_written;
	bool loaded_ok;
	int last_error;
	u8 arc_log[SYNTH_ARC_LOG][2];
	unsigned int arc_log_count;
};

static const char *const state_names[VFIO_DEVICE_STATE_NR] = {
	"ERROR", "STOP", "RUNNING", "STOP_COPY", "RESUMING", "RUNNING_P2P", "PRE_COPY", "PRE_COPY_P2P",
};

/* One data_fd. It outlives its session: dead from then on. */
struct synth_stream {
	struct kref kref;
	struct synth_device *synth;
	bool is_dead;
	wait_queue_head_t changed;
	struct delayed_work tick;
	u8 *bounce;

	u64 seed;
	u64 size_bytes;
	u64 position; /* in the stream */
	u64 data_bytes; /* of the pattern so far: its next byte's offset */

	/* The record that is read or written at the moment. */
	u8 head[SYNTH_BEGIN_BYTES];
	size_t head_bytes;
	size_t head_done;
	u64 data_left;

	/* Saving only. */
	bool has_begun;
	bool initial_is_queued;
	bool final_is_queued;
	bool end_is_queued;
	bool record_is_dirty; /* the present record, else initial or final */
	u64 initial_bytes; /* of pattern, in PRE_COPY */
	u64 dirty_bytes; /* made and not yet in a record */
	u64 dirty_ready_bytes; /* of these, what reads may have */
	u64 dirty_since_ns;
	bool read_error_done;

	/* Resuming only. */
	bool has_ended;
	u32 registers[SYNTH_REGISTERS];
	int write_error; /* the first, negative */
	int content_error; /* found, but told only at the end */
	bool write_error_done;
};

static struct synth_device *to_synth(struct vfio_device *vdev)
{
	return container_of(vdev, struct synth_device, vdev);
}

static bool is_saving(enum vfio_device_mig_state state)
{
	return state == VFIO_DEVICE_STATE_PRE_COPY || state == VFIO_DEVICE_STATE_PRE_COPY_P2P ||
	       state == VFIO_DEVICE_STATE_STOP_COPY;
}

static bool is_precopy(enum vfio_device_mig_state state)
{
	return is_saving(state) && state != VFIO_DEVICE_STATE_STOP_COPY;
}

static int failed(struct synth_device *synth, int error)
{
	synth->last_error = -error;
	return error;
}

/* ---- Saving ------------------------------------------------------------------------------- */

static void grow_dirty(struct synth_stream *stream, u64 bytes)
{
	u64 bytes_max = stream->synth->params.dirty_bytes_max;

	if (bytes_max == 0)
		bytes_max = stream->size_bytes;
	if (stream->dirty_bytes < bytes_max)
		stream->dirty_bytes += min(bytes, bytes_max - stream->dirty_bytes);
}

/* The device goes on dirtying its state for as long as it runs. */
static void dirty_by_time(struct synth_stream *stream)
{
	struct synth_params *params = &stream->synth->params;
	u64 now_ns = ktime_get_ns();

	if (is_precopy(stream->synth->state) && params->dirty_bytes_per_s) {
		u64 ms = div_u64(now_ns - stream->dirty_since_ns, NSEC_PER_MSEC);
		u64 bytes = div_u64(params->dirty_bytes_per_s * min_t(u64, ms, 60000), MSEC_PER_SEC);

		if (!bytes)
			return;
		grow_dirty(stream, bytes);
	}
	stream->dirty_since_ns = now_ns;
	if (!params->dirty_needs_info || !is_precopy(stream->synth->state))
		stream->dirty_ready_bytes = stream->dirty_bytes;
}

static void queue_data(struct synth_stream *stream, u64 bytes, bool is_dirty)
{
	struct synth_record record = { .type = SYNTH_DATA, .bytes = bytes };

	memcpy(stream->head, &record, sizeof(record));
	stream->head_bytes = sizeof(record);
	stream->head_done = 0;
	stream->data_left = bytes;
	stream->record_is_dirty = is_dirty;
}

static void queue_begin(struct synth_stream *stream)
{
	struct synth_record record = { .type = SYNTH_BEGIN, .bytes = sizeof(struct synth_begin) };
	struct synth_begin begin = {
		.magic = SYNTH_MAGIC,
		.version = SYNTH_VERSION,
		.seed = stream->seed,
		.size_bytes = stream->size_bytes,
	};

	memcpy(begin.registers, stream->synth->registers, sizeof(begin.registers));
	memcpy(stream->head, &record, sizeof(record));
	memcpy(stream->head + sizeof(record), &begin, sizeof(begin));
	stream->head_bytes = SYNTH_BEGIN_BYTES;
	stream->head_done = 0;
	stream->record_is_dirty = false;
}

static void queue_end(struct synth_stream *stream)
{
	struct synth_record record = { .type = SYNTH_END, .bytes = sizeof(struct synth_end) };
	struct synth_end end = { .data_bytes = stream->data_bytes };

	memcpy(end.registers, stream->synth->registers, sizeof(end.registers));
	memcpy(stream->head, &record, sizeof(record));
	memcpy(stream->head + sizeof(record), &end, sizeof(end));
	stream->head_bytes = SYNTH_END_BYTES;
	stream->head_done = 0;
	stream->record_is_dirty = false;
}

static bool record_is_done(struct synth_stream *stream)
{
	return stream->head_done == stream->head_bytes && stream->data_left == 0;
}

/* Makes the next record; false if there is none now. */
static bool next_record(struct synth_stream *stream)
{
	bool precopy = is_precopy(stream->synth->state);
	u64 bytes;

	if (!stream->has_begun) {
		stream->has_begun = true;
		queue_begin(stream);
		return true;
	}
	if (precopy) {
		if (!stream->initial_is_queued) {
			stream->initial_is_queued = true;
			if (stream->initial_bytes) {
				queue_data(stream, stream->initial_bytes, false);
				return true;
			}
		}
		bytes = stream->dirty_ready_bytes;
		if (!bytes)
			return false;
		stream->dirty_bytes -= bytes;
		stream->dirty_ready_bytes = 0;
		queue_data(stream, bytes, true);
		return true;
	}
	if (!stream->final_is_queued) {
		stream->final_is_queued = true;
		bytes = stream->size_bytes + stream->dirty_bytes;
		if (stream->initial_is_queued)
			bytes -= stream->initial_bytes;
		stream->dirty_bytes = 0;
		stream->dirty_ready_bytes = 0;
		if (bytes) {
			queue_data(stream, bytes, false);
			return true;
		}
	}
	if (!stream->end_is_queued) {
		stream->end_is_queued = true;
		queue_end(stream);
		return true;
	}
	return false;
}

/* Up to `bytes` bytes of the stream; less only at its (for now) last byte. */
static size_t make_bytes(struct synth_stream *stream, u8 *to, size_t bytes)
{
	size_t made = 0, n;

	while (made < bytes) {
		if (record_is_done(stream) && !next_record(stream))
			break;
		if (stream->head_done < stream->head_bytes) {
			n = min(bytes - made, stream->head_bytes - stream->head_done);
			memcpy(to + made, stream->head + stream->head_done, n);
			stream->head_done += n;
		} else {
			n = min_t(u64, bytes - made, stream->data_left);
			pattern_fill(to + made, stream->seed, stream->data_bytes, n);
			stream->data_bytes += n;
			stream->data_left -= n;
		}
		made += n;
	}
	return made;
}

static bool has_bytes(struct synth_stream *stream)
{
	dirty_by_time(stream);
	if (!record_is_done(stream) || !stream->has_begun || !is_precopy(stream->synth->state))
		return true;
	return (!stream->initial_is_queued && stream->initial_bytes) || stream->dirty_ready_bytes;
}

static int wait_ms(u64 ms)
{
	if (ms && msleep_interruptible(ms))
		return -EINTR;
	return 0;
}

/* How many bytes one read may have, or a negative errno. */
static ssize_t read_allowance(struct synth_stream *stream, size_t wanted)
{
	struct synth_params *params = &stream->synth->params;
	u64 bytes = wanted;

	if (stream->position == 0 && params->first_read_bytes)
		bytes = min(bytes, params->first_read_bytes);
	if (params->read_bytes_max)
		bytes = min(bytes, params->read_bytes_max);
	if (params->read_error_at != SYNTH_OFF && !stream->read_error_done) {
		if (stream->position >= params->read_error_at)
			return -(ssize_t)params->read_errno;
		bytes = min(bytes, params->read_error_at - stream->position);
	}
	if (params->truncate_at != SYNTH_OFF) {
		if (stream->position >= params->truncate_at)
			return 0;
		bytes = min(bytes, params->truncate_at - stream->position);
	}
	return bytes;
}

static ssize_t copy_out(struct synth_stream *stream, char __user *to, size_t bytes)
{
	u64 corrupt_at = stream->synth->params.corrupt_at;
	size_t done = 0, n;

	while (done < bytes) {
		n = make_bytes(stream, stream->bounce, min_t(size_t, bytes - done, SYNTH_BOUNCE_BYTES));
		if (!n)
			break;
		if (corrupt_at >= stream->position && corrupt_at - stream->position < n)
			stream->bounce[corrupt_at - stream->position] ^= 1;
		if (to && copy_to_user(to + done, stream->bounce, n))
			return -EFAULT;
		stream->position += n;
		stream->synth->bytes_read += n;
		done += n;
		cond_resched();
	}
	return done;
}

static ssize_t read_locked(struct synth_stream *stream, char __user *to, size_t wanted)
{
	struct synth_device *synth = stream->synth;
	ssize_t bytes;

	if (stream->is_dead)
		return -ENODEV;
	if (!wanted)
		return 0;
	dirty_by_time(stream);
	bytes = read_allowance(stream, wanted);
	if (bytes < 0) {
		/* As drivers do that count bytes before they deliver them. */
		if (synth->params.error_skips) {
			stream->read_error_done = true;
			copy_out(stream, NULL, min_t(size_t, wanted, SZ_4K));
		}
		return failed(synth, bytes);
	}
	if (bytes > 0)
		bytes = copy_out(stream, to, bytes);
	if (bytes == 0 && is_precopy(synth->state))
		return -ENOMSG;
	return bytes < 0 ? failed(synth, bytes) : bytes;
}

/* Whether a read would find something, an end or an error: what a blocking read waits for. */
static bool is_readable(struct synth_stream *stream)
{
	bool readable;

	mutex_lock(&stream->synth->lock);
	readable = stream->is_dead || has_bytes(stream);
	mutex_unlock(&stream->synth->lock);
	return readable;
}

static ssize_t synth_read(struct file *file, char __user *to, size_t bytes, loff_t *offset)
{
	struct synth_stream *stream = file->private_data;
	struct synth_params *params = &stream->synth->params;
	ssize_t result;

	if (offset)
		return -ESPIPE;
	if (wait_ms(READ_ONCE(params->read_delay_ms)))
		return -EINTR;
	for (;;) {
		mutex_lock(&stream->synth->lock);
		result = read_locked(stream, to, bytes);
		mutex_unlock(&stream->synth->lock);
		if (result != -ENOMSG)
			return result;
		if (!READ_ONCE(params->read_blocks))
			return READ_ONCE(params->empty_is_enomsg) ? -ENOMSG : 0;
		if (file->f_flags & O_NONBLOCK)
			return -EAGAIN;
		if (wait_event_interruptible(stream->changed, is_readable(stream)))
			return -ERESTARTSYS;
	}
}

static __poll_t synth_poll(struct file *file, struct poll_table_struct *table)
{
	struct synth_stream *stream = file->private_data;

	poll_wait(file, &stream->changed, table);
	if (READ_ONCE(stream->is_dead))
		return EPOLLIN | EPOLLRDNORM | EPOLLRDHUP;
	return is_readable(stream) ? EPOLLIN | EPOLLRDNORM : 0;
}

/* Wakes those that wait for the device to dirty its state. */
static void synth_tick(struct work_struct *work)
{
	struct synth_stream *stream = container_of(work, struct synth_stream, tick.work);

	wake_up_all(&stream->changed);
	if (!READ_ONCE(stream->is_dead))
		schedule_delayed_work(&stream->tick, msecs_to_jiffies(20));
}

/* What is still to come in pre-copy, in bytes of the stream. */
static void tell_precopy(struct synth_stream *stream, struct vfio_precopy_info *info)
{
	u64 left = stream->head_bytes - stream->head_done + stream->data_left;

	info->initial_bytes = 0;
	if (!stream->has_begun)
		info->initial_bytes += SYNTH_BEGIN_BYTES;
	if (!stream->initial_is_queued && stream->initial_bytes)
		info->initial_bytes += sizeof(struct synth_record) + stream->initial_bytes;
	info->dirty_bytes = 0;
	if (stream->dirty_bytes)
		info->dirty_bytes = sizeof(struct synth_record) + stream->dirty_bytes;
	if (stream->record_is_dirty)
		info->dirty_bytes += left;
	else
		info->initial_bytes += left;
}

static long synth_stream_ioctl(struct file *file, unsigned int command, unsigned long arg)
{
	struct synth_stream *stream = file->private_data;
	struct synth_device *synth = stream->synth;
	const size_t bytes_min = offsetofend(struct vfio_precopy_info, dirty_bytes);
	struct vfio_precopy_info info;
	int error = 0;

	if (command != VFIO_MIG_GET_PRECOPY_INFO)
		return -ENOTTY;
	if (copy_from_user(&info, (void __user *)arg, bytes_min))
		return -EFAULT;
	if (info.argsz < bytes_min)
		return -EINVAL;

	mutex_lock(&synth->lock);
	if (stream->is_dead) {
		error = -ENODEV;
	} else if (!is_precopy(synth->state)) {
		error = -EINVAL;
	} else {
		dirty_by_time(stream);
		grow_dirty(stream, synth->params.dirty_bytes_per_info);
		stream->dirty_ready_bytes = stream->dirty_bytes;
		tell_precopy(stream, &info);
		wake_up_all(&stream->changed);
	}
	mutex_unlock(&synth->lock);
	if (error)
		return error;
	return copy_to_user((void __user *)arg, &info, bytes_min) ? -EFAULT : 0;
}

/* ---- Loading ------------------------------------------------------------------------------ */

static int begin_loading(struct synth_stream *stream, const struct synth_begin *begin)
{
	if (stream->has_begun || begin->magic != SYNTH_MAGIC || begin->version != SYNTH_VERSION ||
	    begin->size_bytes > SYNTH_SIZE_MAX)
		return -EINVAL;
	stream->has_begun = true;
	stream->seed = begin->seed;
	stream->size_bytes = begin->size_bytes;
	return 0;
}

/* The record's head, whole in stream->head. */
static int load_head(struct synth_stream *stream)
{
	struct synth_record record;
	struct synth_begin begin;
	struct synth_end end;

	memcpy(&record, stream->head, sizeof(record));
	switch (record.type) {
	case SYNTH_BEGIN:
		memcpy(&begin, stream->head + sizeof(record), sizeof(begin));
		return begin_loading(stream, &begin);
	case SYNTH_END:
		memcpy(&end, stream->head + sizeof(record), sizeof(end));
		if (end.data_bytes != stream->data_bytes || end.data_bytes < stream->size_bytes)
			return -EINVAL;
		memcpy(stream->registers, end.registers, sizeof(stream->registers));
		stream->has_ended = true;
		return 0;
	default:
		stream->data_left = record.bytes;
		return 0;
	}
}

/* The first 16 bytes of a record say how long its head is. */
static int load_record(struct synth_stream *stream)
{
	struct synth_record record;

	memcpy(&record, stream->head, sizeof(record));
	if (record.reserved || stream->has_ended)
		return -EINVAL;
	if (record.type == SYNTH_BEGIN && record.bytes == sizeof(struct synth_begin))
		stream->head_bytes = SYNTH_BEGIN_BYTES;
	else if (record.type == SYNTH_END && stream->has_begun && record.bytes == sizeof(struct synth_end))
		stream->head_bytes = SYNTH_END_BYTES;
	else if (record.type != SYNTH_DATA || !stream->has_begun || !record.bytes)
		return -EINVAL;
	return 0;
}

static int load_bytes(struct synth_stream *stream, const u8 *from, size_t bytes)
{
	int error = 0;
	size_t n;

	while (bytes && !error) {
		if (stream->data_left) {
			n = min_t(u64, bytes, stream->data_left);
			if (!pattern_is(from, stream->seed, stream->data_bytes, n))
				return -EINVAL;
			stream->data_bytes += n;
			stream->data_left -= n;
		} else {
			if (stream->head_done == 0)
				stream->head_bytes = sizeof(struct synth_record);
			n = min(bytes, stream->head_bytes - stream->head_done);
			memcpy(stream->head + stream->head_done, from, n);
			stream->head_done += n;
			if (stream->head_done == sizeof(struct synth_record))
				error = load_record(stream);
			if (!error && stream->head_done == stream->head_bytes) {
				error = load_head(stream);
				stream->head_done = 0;
			}
		}
		from += n;
		bytes -= n;
	}
	return error;
}

static ssize_t write_allowance(struct synth_stream *stream, size_t wanted)
{
	struct synth_params *params = &stream->synth->params;
	u64 bytes = wanted;

	if (params->write_bytes_max)
		bytes = min(bytes, params->write_bytes_max);
	if (params->write_error_at != SYNTH_OFF && !stream->write_error_done) {
		if (stream->position >= params->write_error_at)
			return -(ssize_t)params->write_errno;
		bytes = min(bytes, params->write_error_at - stream->position);
	}
	return bytes;
}

static ssize_t copy_in(struct synth_stream *stream, const char __user *from, size_t bytes)
{
	size_t done = 0, n;
	int error;

	while (done < bytes) {
		n = min_t(size_t, bytes - done, SYNTH_BOUNCE_BYTES);
		if (copy_from_user(stream->bounce, from + done, n))
			return -EFAULT;
		if (!stream->content_error) {
			error = load_bytes(stream, stream->bounce, n);
			if (error && stream->synth->params.load_in_write)
				return error;
			stream->content_error = error;
		}
		stream->position += n;
		stream->synth->bytes_written += n;
		done += n;
		cond_resched();
	}
	return done;
}

static ssize_t write_locked(struct synth_stream *stream, const char __user *from, size_t wanted)
{
	struct synth_device *synth = stream->synth;
	ssize_t bytes;

	if (stream->is_dead)
		return -ENODEV;
	if (stream->write_error)
		return stream->write_error;
	if (!wanted)
		return 0;
	bytes = write_allowance(stream, wanted);
	if (bytes < 0 && synth->params.error_skips) {
		/* The retry "succeeds" on a stream with a hole in it. */
		stream->write_error_done = true;
		stream->content_error = -EINVAL;
		return failed(synth, bytes);
	}
	if (bytes > 0)
		bytes = copy_in(stream, from, bytes);
	if (bytes < 0)
		stream->write_error = failed(synth, bytes);
	return bytes;
}

static ssize_t synth_write(struct file *file, const char __user *from, size_t bytes, loff_t *offset)
{
	struct synth_stream *stream = file->private_data;
	struct synth_device *synth = stream->synth;
	u64 delay_ms = READ_ONCE(synth->params.write_delay_ms);
	bool holds_lock = READ_ONCE(synth->params.load_in_write);
	ssize_t result;

	if (offset)
		return -ESPIPE;
	if (!holds_lock && wait_ms(delay_ms))
		return -EINTR;
	mutex_lock(&synth->lock);
	/* A driver that loads inside write() keeps others from the device's state meanwhile. */
	if (holds_lock && wait_ms(delay_ms))
		result = -EINTR;
	else
		result = write_locked(stream, from, bytes);
	mutex_unlock(&synth->lock);
	return result;
}

static int finish_loading(struct synth_device *synth)
{
	struct synth_stream *stream = synth->stream;
	bool is_whole = stream->has_ended && stream->head_done == 0 && stream->data_left == 0;

	if (stream->write_error || stream->content_error)
		return -EINVAL;
	if (!is_whole && !synth->params.accept_truncated)
		return -EINVAL;
	if (is_whole) {
		synth->params.seed = stream->seed;
		synth->params.size_bytes = stream->size_bytes;
		memcpy(synth->registers, stream->registers, sizeof(synth->registers));
		synth->loaded_ok = true;
	}
	return 0;
}

/* ---- Streams as files --------------------------------------------------------------------- */

static void free_stream(struct kref *kref)
{
	struct synth_stream *stream = container_of(kref, struct synth_stream, kref);

	vfio_put_device(&stream->synth->vdev);
	kvfree(stream->bounce);
	kfree(stream);
}

static int synth_stream_release(struct inode *inode, struct file *file)
{
	struct synth_stream *stream = file->private_data;

	cancel_delayed_work_sync(&stream->tick);
	kref_put(&stream->kref, free_stream);
	return 0;
}

static const struct file_operations saving_fops = {
	.owner = THIS_MODULE,
	.read = synth_read,
	.unlocked_ioctl = synth_stream_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.release = synth_stream_release,
};

/* Whether a file can be polled at all is a property of its operations. */
static const struct file_operations polled_saving_fops = {
	.owner = THIS_MODULE,
	.read = synth_read,
	.poll = synth_poll,
	.unlocked_ioctl = synth_stream_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.release = synth_stream_release,
};

static const struct file_operations resuming_fops = {
	.owner = THIS_MODULE,
	.write = synth_write,
	.release = synth_stream_release,
};

static const struct file_operations *stream_fops(struct synth_device *synth, bool saving)
{
	if (!saving)
		return &resuming_fops;
	return synth->params.poll ? &polled_saving_fops : &saving_fops;
}

/* Both the device, until its session ends, and the file hold the stream. */
static struct file *open_stream(struct synth_device *synth, bool saving)
{
	struct synth_stream *stream = kzalloc(sizeof(*stream), GFP_KERNEL_ACCOUNT);
	struct file *file;

	if (!stream)
		return ERR_PTR(-ENOMEM);
	stream->bounce = kvmalloc(SYNTH_BOUNCE_BYTES, GFP_KERNEL_ACCOUNT);
	if (!stream->bounce) {
		kfree(stream);
		return ERR_PTR(-ENOMEM);
	}
	kref_init(&stream->kref);
	init_waitqueue_head(&stream->changed);
	INIT_DELAYED_WORK(&stream->tick, synth_tick);
	stream->synth = synth;
	stream->seed = synth->params.seed;
	stream->size_bytes = synth->params.size_bytes;
	stream->initial_bytes = min(synth->params.precopy_initial_bytes, stream->size_bytes);
	stream->dirty_since_ns = ktime_get_ns();
	get_device(&synth->vdev.device);

	file = anon_inode_getfile("godwit_synth", stream_fops(synth, saving), stream,
				  saving ? O_RDONLY : O_WRONLY);
	if (IS_ERR(file)) {
		kref_put(&stream->kref, free_stream);
		return file;
	}
	stream_open(file_inode(file), file);
	kref_get(&stream->kref);
	synth->stream = stream;
	if (saving)
		schedule_delayed_work(&stream->tick, msecs_to_jiffies(20));
	else
		synth->loaded_ok = false;
	return file;
}

static void end_stream(struct synth_device *synth)
{
	struct synth_stream *stream = synth->stream;

	if (!stream)
		return;
	synth->stream = NULL;
	WRITE_ONCE(stream->is_dead, true);
	wake_up_all(&stream->changed);
	kref_put(&stream->kref, free_stream);
}

/* ---- Migration states --------------------------------------------------------------------- */

static struct file *take_arc(struct synth_device *synth, enum vfio_device_mig_state next)
{
	enum vfio_device_mig_state now = synth->state;
	struct synth_arc *arc = &synth->arcs[now][next];
	struct file *file = NULL;
	int error;

	if (synth->arc_log_count < SYNTH_ARC_LOG) {
		synth->arc_log[synth->arc_log_count][0] = now;
		synth->arc_log[synth->arc_log_count][1] = next;
		synth->arc_log_count++;
	}
	if (wait_ms(arc->delay_ms))
		return ERR_PTR(-EINTR);
	if (arc->error)
		return ERR_PTR(-(long)arc->error);

	if (now == VFIO_DEVICE_STATE_RESUMING) {
		error = finish_loading(synth);
		if (error)
			return ERR_PTR(error);
	}
	if (synth->stream && is_precopy(now))
		dirty_by_time(synth->stream);
	if (!is_saving(next) && next != VFIO_DEVICE_STATE_RESUMING)
		end_stream(synth);
	else if (!synth->stream)
		file = open_stream(synth, is_saving(next));
	if (IS_ERR(file))
		return file;
	synth->state = next;
	if (synth->stream) {
		wake_up_all(&synth->stream->changed);
	}
	return file;
}

static struct file *synth_set_state(struct vfio_device *vdev, enum vfio_device_mig_state wanted)
{
	struct synth_device *synth = to_synth(vdev);
	enum vfio_device_mig_state next;
	struct file *file = NULL;
	int error;

	mutex_lock(&synth->lock);
	if (synth->state == VFIO_DEVICE_STATE_ERROR)
		file = ERR_PTR(-EIO);
	/* There is no such arc; but asked for a next state, the core of Linux 6.12 looks for ever. */
	else if (synth->state == VFIO_DEVICE_STATE_STOP_COPY && is_precopy(wanted))
		file = ERR_PTR(-EINVAL);
	while (!IS_ERR(file) && synth->state != wanted) {
		/* No arc that opens a file is followed by another. */
		if (WARN_ON(file))
			break;
		error = vfio_mig_get_next_state(vdev, synth->state, wanted, &next);
		file = error ? ERR_PTR(error) : take_arc(synth, next);
	}
	if (IS_ERR(file))
		failed(synth, PTR_ERR(file));
	mutex_unlock(&synth->lock);
	return file;
}

static int synth_get_state(struct vfio_device *vdev, enum vfio_device_mig_state *state)
{
	struct synth_device *synth = to_synth(vdev);

	mutex_lock(&synth->lock);
	*state = synth->state;
	mutex_unlock(&synth->lock);
	return 0;
}

static int synth_get_data_size(struct vfio_device *vdev, unsigned long *bytes)
{
	struct synth_device *synth = to_synth(vdev);
	struct synth_stream *stream;
	u64 left;

	mutex_lock(&synth->lock);
	stream = synth->stream;
	left = SYNTH_BEGIN_BYTES + SYNTH_END_BYTES + sizeof(struct synth_record) + synth->params.size_bytes;
	if (stream && is_saving(synth->state)) {
		left += stream->dirty_bytes + stream->head_bytes - stream->head_done + stream->data_left;
		if (stream->has_begun)
			left -= SYNTH_BEGIN_BYTES;
		if (stream->initial_is_queued)
			left -= stream->initial_bytes;
		if (stream->final_is_queued)
			left -= stream->size_bytes - (stream->initial_is_queued ? stream->initial_bytes : 0);
	}
	mutex_unlock(&synth->lock);
	*bytes = left;
	return 0;
}

static const struct vfio_migration_ops synth_mig_ops = {
	.migration_set_state = synth_set_state,
	.migration_get_state = synth_get_state,
	.migration_get_data_size = synth_get_data_size,
};

/* ---- DMA logging -------------------------------------------------------------------------- */

static void free_ranges(struct list_head *ranges)
{
	struct synth_range *range, *next;

	list_for_each_entry_safe(range, next, ranges, entry) {
		list_del(&range->entry);
		kfree(range);
	}
}

static int remember_range(struct list_head *ranges, u64 first, u64 last)
{
	struct synth_range *range = kmalloc(sizeof(*range), GFP_KERNEL_ACCOUNT);

	if (!range)
		return -ENOMEM;
	range->first = first;
	range->last = last;
	list_add_tail(&range->entry, ranges);
	return 0;
}

static void stop_dma_log(struct synth_device *synth)
{
	free_ranges(&synth->dma_log_ranges);
	free_ranges(&synth->dma_dirty);
	synth->dma_log_on = false;
}

static int synth_log_start(struct vfio_device *vdev, struct rb_root_cached *ranges, u32 count,
			   u64 *page_bytes)
{
	struct synth_device *synth = to_synth(vdev);
	struct interval_tree_node *node;
	int error = 0;

	mutex_lock(&synth->lock);
	if (synth->dma_log_on) {
		error = -EINVAL;
		goto out;
	}
	for (node = interval_tree_iter_first(ranges, 0, ULONG_MAX); node && !error;
	     node = interval_tree_iter_next(node, 0, ULONG_MAX))
		error = remember_range(&synth->dma_log_ranges, node->start, node->last);
	if (error) {
		stop_dma_log(synth);
		goto out;
	}
	if (synth->params.dma_page_bytes)
		*page_bytes = synth->params.dma_page_bytes;
	synth->dma_log_page_bytes = *page_bytes;
	synth->dma_log_on = true;
out:
	mutex_unlock(&synth->lock);
	return error;
}

static int synth_log_stop(struct vfio_device *vdev)
{
	struct synth_device *synth = to_synth(vdev);

	mutex_lock(&synth->lock);
	stop_dma_log(synth);
	mutex_unlock(&synth->lock);
	return 0;
}

static int synth_log_read_and_clear(struct vfio_device *vdev, unsigned long iova, unsigned long length,
				    struct iova_bitmap *bitmap)
{
	struct synth_device *synth = to_synth(vdev);
	u64 last = iova + length - 1;
	struct synth_range *range, *next;
	int error = 0;

	mutex_lock(&synth->lock);
	if (!synth->dma_log_on)
		error = -EINVAL;
	else if (synth->params.dma_report_errno)
		error = -(int)synth->params.dma_report_errno;
	list_for_each_entry_safe(range, next, &synth->dma_dirty, entry) {
		u64 first_dirty = max_t(u64, range->first, iova), last_dirty = min(range->last, last);

		if (error)
			break;
		if (first_dirty > last_dirty)
			continue;
		/* What lies before and after stays dirty; a new range is put before the present one. */
		if (range->first < first_dirty)
			error = remember_range(&range->entry, range->first, first_dirty - 1);
		if (!error && range->last > last_dirty)
			error = remember_range(&range->entry, last_dirty + 1, range->last);
		if (error)
			break;
		iova_bitmap_set(bitmap, first_dirty, last_dirty - first_dirty + 1);
		list_del(&range->entry);
		kfree(range);
	}
	mutex_unlock(&synth->lock);
	return error;
}

static const struct vfio_log_ops synth_log_ops = {
	.log_start = synth_log_start,
	.log_stop = synth_log_stop,
	.log_read_and_clear = synth_log_read_and_clear,
};

/* The device "writes" to memory: logged where logging was asked for, by whole pages. */
static int log_dma(struct synth_device *synth, u64 iova, u64 length)
{
	u64 first = round_down(iova, synth->dma_log_page_bytes);
	u64 last = round_down(iova + length - 1, synth->dma_log_page_bytes) + synth->dma_log_page_bytes - 1;
	struct synth_range *range;
	int error = 0;

	list_for_each_entry(range, &synth->dma_log_ranges, entry) {
		if (range->last < first || range->first > last || error)
			continue;
		error = remember_range(&synth->dma_dirty, max(range->first, first), min(range->last, last));
	}
	return error;
}

/* ---- A PCI function ----------------------------------------------------------------------- */

#define SYNTH_REGION_SHIFT 40
#define SYNTH_BAR_BYTES SZ_4K
#define SYNTH_MSI_CAP 0x40
/* Past the scratch registers: who the device is, and a bell that makes it interrupt. */
#define SYNTH_BAR_ID (SYNTH_REGISTERS * 4)
#define SYNTH_BAR_BELL (SYNTH_BAR_ID + 4)

static void config_set(struct synth_device *synth, int at, u32 value, u32 writable, int bytes)
{
	int i;

	for (i = 0; i < bytes; i++) {
		synth->config[at + i] = value >> (8 * i);
		synth->config_writable[at + i] = writable >> (8 * i);
	}
}

static void init_config(struct synth_device *synth)
{
	memset(synth->config, 0, sizeof(synth->config));
	memset(synth->config_writable, 0, sizeof(synth->config_writable));
	/* "GW" and "SY": no vendor has these. */
	config_set(synth, PCI_VENDOR_ID, 0x4757, 0, 2);
	config_set(synth, PCI_DEVICE_ID, 0x5953, 0, 2);
	config_set(synth, PCI_COMMAND, 0,
		   PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE, 2);
	config_set(synth, PCI_STATUS, PCI_STATUS_CAP_LIST, 0, 2);
	config_set(synth, PCI_REVISION_ID, 1, 0, 1);
	config_set(synth, PCI_CLASS_DEVICE, 0xff00, 0, 2);
	config_set(synth, PCI_CACHE_LINE_SIZE, 0, 0xff, 1);
	config_set(synth, PCI_BASE_ADDRESS_0, PCI_BASE_ADDRESS_SPACE_MEMORY, ~(SYNTH_BAR_BYTES - 1), 4);
	config_set(synth, PCI_SUBSYSTEM_VENDOR_ID, 0x4757, 0, 2);
	config_set(synth, PCI_SUBSYSTEM_ID, 0x5953, 0, 2);
	config_set(synth, PCI_CAPABILITY_LIST, SYNTH_MSI_CAP, 0, 1);
	config_set(synth, PCI_INTERRUPT_LINE, 0, 0xff, 1);
	config_set(synth, PCI_INTERRUPT_PIN, 1, 0, 1);
	config_set(synth, SYNTH_MSI_CAP, PCI_CAP_ID_MSI, 0, 2);
	config_set(synth, SYNTH_MSI_CAP + PCI_MSI_FLAGS, PCI_MSI_FLAGS_64BIT, PCI_MSI_FLAGS_ENABLE, 2);
	config_set(synth, SYNTH_MSI_CAP + PCI_MSI_ADDRESS_LO, 0, ~3u, 4);
	config_set(synth, SYNTH_MSI_CAP + PCI_MSI_ADDRESS_HI, 0, ~0u, 4);
	config_set(synth, SYNTH_MSI_CAP + PCI_MSI_DATA_64, 0, 0xffff, 2);
}

static void interrupt(struct synth_device *synth)
{
	if (synth->msi)
		eventfd_signal(synth->msi);
	else if (synth->intx && !synth->intx_masked)
		eventfd_signal(synth->intx);
}

static u32 bar_read(struct synth_device *synth, u32 at)
{
	if (at < SYNTH_BAR_ID)
		return synth->registers[at / 4];
	return at == SYNTH_BAR_ID ? lower_32_bits(SYNTH_MAGIC) : 0;
}

static u64 region_bytes(unsigned int index)
{
	if (index == VFIO_PCI_BAR0_REGION_INDEX)
		return SYNTH_BAR_BYTES;
	return index == VFIO_PCI_CONFIG_REGION_INDEX ? PCI_CFG_SPACE_SIZE : 0;
}

static u8 region_read_byte(struct synth_device *synth, unsigned int index, u32 at)
{
	if (index == VFIO_PCI_CONFIG_REGION_INDEX)
		return synth->config[at];
	return bar_read(synth, round_down(at, 4)) >> (8 * (at % 4));
}

static void region_write_byte(struct synth_device *synth, unsigned int index, u32 at, u8 value)
{
	u8 mask;

	if (index == VFIO_PCI_CONFIG_REGION_INDEX) {
		mask = synth->config_writable[at];
		synth->config[at] = (synth->config[at] & ~mask) | (value & mask);
	} else if (at < SYNTH_BAR_ID) {
		u32 shift = 8 * (at % 4);

		synth->registers[at / 4] =
			(synth->registers[at / 4] & ~(0xffu << shift)) | ((u32)value << shift);
	} else if (at == SYNTH_BAR_BELL && value) {
		interrupt(synth);
	}
}

/* Where in which region, and how many bytes of `bytes` are inside; 0 for none. */
static size_t region_part(loff_t position, size_t bytes, unsigned int *index, u32 *at)
{
	u64 offset = position & ((1ULL << SYNTH_REGION_SHIFT) - 1), size;

	*index = position >> SYNTH_REGION_SHIFT;
	size = region_bytes(*index);
	if (offset >= size)
		return 0;
	*at = offset;
	return min_t(u64, bytes, size - offset);
}

static ssize_t synth_region_read(struct vfio_device *vdev, char __user *to, size_t bytes, loff_t *position)
{
	struct synth_device *synth = to_synth(vdev);
	unsigned int index;
	u32 at = 0, i;
	u8 part[PCI_CFG_SPACE_SIZE]; /* whose readers take no short read */

	bytes = region_part(*position, min(bytes, sizeof(part)), &index, &at);
	if (!bytes)
		return -EINVAL;
	mutex_lock(&synth->lock);
	for (i = 0; i < bytes; i++)
		part[i] = region_read_byte(synth, index, at + i);
	mutex_unlock(&synth->lock);
	if (copy_to_user(to, part, bytes))
		return -EFAULT;
	*position += bytes;
	return bytes;
}

static ssize_t synth_region_write(struct vfio_device *vdev, const char __user *from, size_t bytes,
				  loff_t *position)
{
	struct synth_device *synth = to_synth(vdev);
	unsigned int index;
	u32 at = 0, i;
	u8 part[PCI_CFG_SPACE_SIZE];

	bytes = region_part(*position, min(bytes, sizeof(part)), &index, &at);
	if (!bytes)
		return -EINVAL;
	if (copy_from_user(part, from, bytes))
		return -EFAULT;
	mutex_lock(&synth->lock);
	for (i = 0; i < bytes; i++)
		region_write_byte(synth, index, at + i, part[i]);
	mutex_unlock(&synth->lock);
	*position += bytes;
	return bytes;
}

static void put_trigger(struct eventfd_ctx **trigger)
{
	if (*trigger)
		eventfd_ctx_put(*trigger);
	*trigger = NULL;
}

static int set_trigger(struct eventfd_ctx **trigger, s32 fd)
{
	struct eventfd_ctx *context = NULL;

	if (fd >= 0) {
		context = eventfd_ctx_fdget(fd);
		if (IS_ERR(context))
			return PTR_ERR(context);
	}
	put_trigger(trigger);
	*trigger = context;
	return 0;
}

static int set_irqs(struct synth_device *synth, const struct vfio_irq_set *set, const u8 *data)
{
	bool is_msi = set->index == VFIO_PCI_MSI_IRQ_INDEX;
	struct eventfd_ctx **trigger = is_msi ? &synth->msi : &synth->intx;
	u32 kind = set->flags & VFIO_IRQ_SET_DATA_TYPE_MASK;
	u32 action = set->flags & VFIO_IRQ_SET_ACTION_TYPE_MASK;
	bool applies = kind != VFIO_IRQ_SET_DATA_BOOL || (data && data[0]);

	if (action == VFIO_IRQ_SET_ACTION_TRIGGER) {
		if (kind == VFIO_IRQ_SET_DATA_EVENTFD)
			return data ? set_trigger(trigger, *(const s32 *)data) : -EINVAL;
		if (set->count == 0)
			put_trigger(trigger);
		else if (applies && *trigger)
			eventfd_signal(*trigger);
		return 0;
	}
	if (is_msi || kind == VFIO_IRQ_SET_DATA_EVENTFD)
		return -ENOTTY;
	if (applies)
		synth->intx_masked = action == VFIO_IRQ_SET_ACTION_MASK;
	return 0;
}

static u32 vectors_of(u32 index)
{
	return index == VFIO_PCI_INTX_IRQ_INDEX || index == VFIO_PCI_MSI_IRQ_INDEX;
}

static long set_irqs_ioctl(struct synth_device *synth, void __user *arg)
{
	const size_t bytes_min = offsetofend(struct vfio_irq_set, count);
	struct vfio_irq_set set;
	size_t data_bytes = 0;
	u8 *data = NULL;
	int error;

	if (copy_from_user(&set, arg, bytes_min))
		return -EFAULT;
	if (set.index >= VFIO_PCI_NUM_IRQS)
		return -EINVAL;
	error = vfio_set_irqs_validate_and_prepare(&set, vectors_of(set.index), VFIO_PCI_NUM_IRQS, &data_bytes);
	if (error)
		return error;
	if (data_bytes) {
		data = memdup_user(arg + bytes_min, data_bytes);
		if (IS_ERR(data))
			return PTR_ERR(data);
	}
	mutex_lock(&synth->lock);
	error = set_irqs(synth, &set, data);
	mutex_unlock(&synth->lock);
	kfree(data);
	return error;
}

static long device_info_ioctl(void __user *arg)
{
	const size_t bytes_min = offsetofend(struct vfio_device_info, num_irqs);
	struct vfio_device_info info;

	if (copy_from_user(&info, arg, bytes_min))
		return -EFAULT;
	if (info.argsz < bytes_min)
		return -EINVAL;
	info.flags = VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET;
	info.num_regions = VFIO_PCI_NUM_REGIONS;
	info.num_irqs = VFIO_PCI_NUM_IRQS;
	return copy_to_user(arg, &info, bytes_min) ? -EFAULT : 0;
}

static long region_info_ioctl(void __user *arg)
{
	const size_t bytes_min = offsetofend(struct vfio_region_info, offset);
	struct vfio_region_info info;

	if (copy_from_user(&info, arg, bytes_min))
		return -EFAULT;
	if (info.argsz < bytes_min || info.index >= VFIO_PCI_NUM_REGIONS)
		return -EINVAL;
	info.cap_offset = 0;
	info.size = region_bytes(info.index);
	info.offset = (u64)info.index << SYNTH_REGION_SHIFT;
	info.flags = info.size ? VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE : 0;
	return copy_to_user(arg, &info, bytes_min) ? -EFAULT : 0;
}

static long irq_info_ioctl(void __user *arg)
{
	const size_t bytes_min = offsetofend(struct vfio_irq_info, count);
	struct vfio_irq_info info;

	if (copy_from_user(&info, arg, bytes_min))
		return -EFAULT;
	if (info.argsz < bytes_min || info.index >= VFIO_PCI_NUM_IRQS)
		return -EINVAL;
	info.count = vectors_of(info.index);
	info.flags = info.count ? VFIO_IRQ_INFO_EVENTFD : 0;
	if (info.index == VFIO_PCI_INTX_IRQ_INDEX)
		info.flags |= VFIO_IRQ_INFO_MASKABLE | VFIO_IRQ_INFO_AUTOMASKED;
	else if (info.count)
		info.flags |= VFIO_IRQ_INFO_NORESIZE;
	return copy_to_user(arg, &info, bytes_min) ? -EFAULT : 0;
}

static void reset_migration(struct synth_device *synth)
{
	end_stream(synth);
	synth->state = VFIO_DEVICE_STATE_RUNNING;
}

static long reset_ioctl(struct synth_device *synth)
{
	mutex_lock(&synth->lock);
	reset_migration(synth);
	memset(synth->registers, 0, sizeof(synth->registers));
	init_config(synth);
	synth->loaded_ok = false;
	mutex_unlock(&synth->lock);
	return 0;
}

static long synth_ioctl(struct vfio_device *vdev, unsigned int command, unsigned long arg)
{
	switch (command) {
	case VFIO_DEVICE_GET_INFO:
		return device_info_ioctl((void __user *)arg);
	case VFIO_DEVICE_GET_REGION_INFO:
		return region_info_ioctl((void __user *)arg);
	case VFIO_DEVICE_GET_IRQ_INFO:
		return irq_info_ioctl((void __user *)arg);
	case VFIO_DEVICE_SET_IRQS:
		return set_irqs_ioctl(to_synth(vdev), (void __user *)arg);
	case VFIO_DEVICE_RESET:
		return reset_ioctl(to_synth(vdev));
	default:
		return -ENOTTY;
	}
}

/* The state survives close, for tests to look at; the next user starts with a running device. */
static int synth_open(struct vfio_device *vdev)
{
	struct synth_device *synth = to_synth(vdev);

	mutex_lock(&synth->lock);
	synth->is_open = true;
	if (synth->params.reset_on_open)
		reset_migration(synth);
	mutex_unlock(&synth->lock);
	return 0;
}

static void synth_close(struct vfio_device *vdev)
{
	struct synth_device *synth = to_synth(vdev);

	mutex_lock(&synth->lock);
	end_stream(synth);
	/* Without a stream these are no states to be found in; a reset is the way out. */
	if (is_saving(synth->state))
		synth->state = synth->state == VFIO_DEVICE_STATE_STOP_COPY ? VFIO_DEVICE_STATE_STOP :
									     VFIO_DEVICE_STATE_RUNNING;
	else if (synth->state == VFIO_DEVICE_STATE_RESUMING)
		synth->state = VFIO_DEVICE_STATE_ERROR;
	stop_dma_log(synth);
	put_trigger(&synth->intx);
	put_trigger(&synth->msi);
	synth->intx_masked = false;
	synth->is_open = false;
	mutex_unlock(&synth->lock);
}

static const struct vfio_device_ops synth_device_ops;

/* Which features a device has may change only while nobody can have asked. */
static void apply_features(struct synth_device *synth)
{
	synth->vdev.migration_flags = synth->params.migration_flags;
	synth->vdev.mig_ops = synth->params.migration_flags ? &synth_mig_ops : NULL;
	synth->vdev.log_ops = synth->params.dma_logging ? &synth_log_ops : NULL;
}

static int synth_init(struct vfio_device *vdev)
{
	struct synth_device *synth = to_synth(vdev);

	mutex_init(&synth->lock);
	INIT_LIST_HEAD(&synth->dma_log_ranges);
	INIT_LIST_HEAD(&synth->dma_dirty);
	synth->state = VFIO_DEVICE_STATE_RUNNING;
	synth->params = (struct synth_params){
		.seed = 1,
		.size_bytes = SZ_1M,
		.migration_flags = VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P | VFIO_MIGRATION_PRE_COPY,
		.dma_logging = IS_ENABLED(CONFIG_IOMMUFD_DRIVER),
		.reset_on_open = 1,
		.precopy_initial_bytes = SZ_64K,
		.empty_is_enomsg = 1,
		.read_error_at = SYNTH_OFF,
		.read_errno = EIO,
		.write_error_at = SYNTH_OFF,
		.write_errno = EIO,
		.corrupt_at = SYNTH_OFF,
		.truncate_at = SYNTH_OFF,
	};
	init_config(synth);
	apply_features(synth);
	return 0;
}

static void synth_release(struct vfio_device *vdev)
{
	mutex_destroy(&to_synth(vdev)->lock);
}

static const struct vfio_device_ops synth_device_ops = {
	.name = "godwit_synth",
	.init = synth_init,
	.release = synth_release,
	.open_device = synth_open,
	.close_device = synth_close,
	.read = synth_region_read,
	.write = synth_region_write,
	.ioctl = synth_ioctl,
#if IS_ENABLED(CONFIG_IOMMUFD)
	.bind_iommufd = vfio_iommufd_emulated_bind,
	.unbind_iommufd = vfio_iommufd_emulated_unbind,
	.attach_ioas = vfio_iommufd_emulated_attach_ioas,
	.detach_ioas = vfio_iommufd_emulated_detach_ioas,
#endif
};

/* ---- Attributes --------------------------------------------------------------------------- */

struct synth_attribute {
	struct device_attribute attribute;
	size_t offset; /* in struct synth_params */
	u64 value_max;
	bool can_be_off;
	bool needs_closed;
};

static u64 *param_of(struct synth_device *synth, const struct synth_attribute *attribute)
{
	return (u64 *)((u8 *)&synth->params + attribute->offset);
}

static ssize_t param_show(struct device *dev, struct device_attribute *device_attribute, char *text)
{
	struct synth_attribute *attribute = container_of(device_attribute, struct synth_attribute, attribute);
	u64 value = *param_of(dev_get_drvdata(dev), attribute);

	if (attribute->can_be_off && value == SYNTH_OFF)
		return sysfs_emit(text, "off\n");
	return sysfs_emit(text, "%llu\n", value);
}

static ssize_t param_store(struct device *dev, struct device_attribute *device_attribute, const char *text,
			   size_t bytes)
{
	struct synth_attribute *attribute = container_of(device_attribute, struct synth_attribute, attribute);
	struct synth_device *synth = dev_get_drvdata(dev);
	int error = 0;
	u64 value;

	if (attribute->can_be_off && sysfs_streq(text, "off"))
		value = SYNTH_OFF;
	else
		error = kstrtou64(text, 0, &value);
	if (error)
		return error;
	if (value > attribute->value_max && !(attribute->can_be_off && value == SYNTH_OFF))
		return -EINVAL;
	mutex_lock(&synth->lock);
	if (attribute->needs_closed && synth->is_open) {
		error = -EBUSY;
	} else {
		*param_of(synth, attribute) = value;
		apply_features(synth);
	}
	mutex_unlock(&synth->lock);
	return error ?: bytes;
}

#define SYNTH_PARAM(_name, _max, _can_be_off, _needs_closed)              \
	static struct synth_attribute param_##_name = {                   \
		.attribute = __ATTR(_name, 0644, param_show, param_store), \
		.offset = offsetof(struct synth_params, _name),           \
		.value_max = _max,                                        \
		.can_be_off = _can_be_off,                                \
		.needs_closed = _needs_closed,                            \
	}
#define SYNTH_VALUE(_name, _max) SYNTH_PARAM(_name, _max, false, false)
#define SYNTH_FEATURE(_name, _max) SYNTH_PARAM(_name, _max, false, true)
#define SYNTH_PLACE(_name) SYNTH_PARAM(_name, U64_MAX - 1, true, false)

SYNTH_VALUE(seed, U64_MAX);
SYNTH_VALUE(size_bytes, SYNTH_SIZE_MAX);
SYNTH_FEATURE(migration_flags, 7);
SYNTH_FEATURE(dma_logging, 1);
SYNTH_VALUE(reset_on_open, 1);
SYNTH_VALUE(load_in_write, 1);
SYNTH_VALUE(accept_truncated, 1);
SYNTH_VALUE(precopy_initial_bytes, SYNTH_SIZE_MAX);
SYNTH_VALUE(dirty_bytes_per_s, 1ULL << 40);
SYNTH_VALUE(dirty_bytes_per_info, SYNTH_SIZE_MAX);
SYNTH_VALUE(dirty_bytes_max, SYNTH_SIZE_MAX);
SYNTH_VALUE(dirty_needs_info, 1);
SYNTH_VALUE(empty_is_enomsg, 1);
SYNTH_VALUE(poll, 1);
SYNTH_VALUE(read_blocks, 1);
SYNTH_VALUE(first_read_bytes, SYNTH_SIZE_MAX);
SYNTH_VALUE(read_bytes_max, SYNTH_SIZE_MAX);
SYNTH_VALUE(write_bytes_max, SYNTH_SIZE_MAX);
SYNTH_VALUE(read_delay_ms, 60000);
SYNTH_VALUE(write_delay_ms, 60000);
SYNTH_PLACE(read_error_at);
SYNTH_VALUE(read_errno, MAX_ERRNO);
SYNTH_PLACE(write_error_at);
SYNTH_VALUE(write_errno, MAX_ERRNO);
SYNTH_VALUE(error_skips, 1);
SYNTH_PLACE(corrupt_at);
SYNTH_PLACE(truncate_at);
SYNTH_VALUE(dma_page_bytes, SZ_1G);
SYNTH_VALUE(dma_report_errno, MAX_ERRNO);

static int parse_state(const char *name)
{
	return match_string(state_names, VFIO_DEVICE_STATE_NR, name);
}

/* "FROM TO VALUE" */
static int parse_arc(const char *text, struct synth_device *synth, struct synth_arc **arc, u32 *value)
{
	char from[16], to[16];
	int now, next;

	if (sscanf(text, "%15s %15s %u", from, to, value) != 3)
		return -EINVAL;
	now = parse_state(from);
	next = parse_state(to);
	if (now < 0 || next < 0)
		return -EINVAL;
	*arc = &synth->arcs[now][next];
	return 0;
}

static ssize_t show_arcs(struct synth_device *synth, char *text, size_t offset)
{
	int now, next, bytes = 0;

	for (now = 0; now < VFIO_DEVICE_STATE_NR; now++) {
		for (next = 0; next < VFIO_DEVICE_STATE_NR; next++) {
			u32 value = *(u32 *)((u8 *)&synth->arcs[now][next] + offset);

			if (value)
				bytes += sysfs_emit_at(text, bytes, "%s %s %u\n", state_names[now],
						       state_names[next], value);
		}
	}
	return bytes;
}

static ssize_t arc_delay_ms_show(struct device *dev, struct device_attribute *attribute, char *text)
{
	return show_arcs(dev_get_drvdata(dev), text, offsetof(struct synth_arc, delay_ms));
}

static ssize_t arc_delay_ms_store(struct device *dev, struct device_attribute *attribute, const char *text,
				  size_t bytes)
{
	struct synth_device *synth = dev_get_drvdata(dev);
	struct synth_arc *arc;
	u32 ms;
	int error = parse_arc(text, synth, &arc, &ms);

	if (error || ms > 60000)
		return -EINVAL;
	mutex_lock(&synth->lock);
	arc->delay_ms = ms;
	mutex_unlock(&synth->lock);
	return bytes;
}
static DEVICE_ATTR_RW(arc_delay_ms);

static ssize_t arc_errno_show(struct device *dev, struct device_attribute *attribute, char *text)
{
	return show_arcs(dev_get_drvdata(dev), text, offsetof(struct synth_arc, error));
}

static ssize_t arc_errno_store(struct device *dev, struct device_attribute *attribute, const char *text,
			       size_t bytes)
{
	struct synth_device *synth = dev_get_drvdata(dev);
	struct synth_arc *arc;
	u32 value;
	int error = parse_arc(text, synth, &arc, &value);

	if (error || value > MAX_ERRNO)
		return -EINVAL;
	mutex_lock(&synth->lock);
	arc->error = value;
	mutex_unlock(&synth->lock);
	return bytes;
}
static DEVICE_ATTR_RW(arc_errno);

/* The arcs taken or tried since it was last written to. */
static ssize_t arc_log_show(struct device *dev, struct device_attribute *attribute, char *text)
{
	struct synth_device *synth = dev_get_drvdata(dev);
	unsigned int i;
	int bytes = 0;

	mutex_lock(&synth->lock);
	for (i = 0; i < synth->arc_log_count; i++)
		bytes += sysfs_emit_at(text, bytes, "%s %s\n", state_names[synth->arc_log[i][0]],
				       state_names[synth->arc_log[i][1]]);
	mutex_unlock(&synth->lock);
	return bytes;
}

static ssize_t arc_log_store(struct device *dev, struct device_attribute *attribute, const char *text,
			     size_t bytes)
{
	struct synth_device *synth = dev_get_drvdata(dev);

	mutex_lock(&synth->lock);
	synth->arc_log_count = 0;
	mutex_unlock(&synth->lock);
	return bytes;
}
static DEVICE_ATTR_RW(arc_log);

static ssize_t force_error_store(struct device *dev, struct device_attribute *attribute, const char *text,
				 size_t bytes)
{
	struct synth_device *synth = dev_get_drvdata(dev);

	mutex_lock(&synth->lock);
	end_stream(synth);
	synth->state = VFIO_DEVICE_STATE_ERROR;
	mutex_unlock(&synth->lock);
	return bytes;
}
static DEVICE_ATTR_WO(force_error);

/* "IOVA LENGTH" */
static ssize_t dma_write_store(struct device *dev, struct device_attribute *attribute, const char *text,
			       size_t bytes)
{
	struct synth_device *synth = dev_get_drvdata(dev);
	u64 iova, length;
	int error;

	if (sscanf(text, "%lli %lli", &iova, &length) != 2 || !length || iova + length - 1 < iova)
		return -EINVAL;
	mutex_lock(&synth->lock);
	error = synth->dma_log_on ? log_dma(synth, iova, length) : -ENODATA;
	mutex_unlock(&synth->lock);
	return error ?: bytes;
}
static DEVICE_ATTR_WO(dma_write);

static ssize_t registers_show(struct device *dev, struct device_attribute *attribute, char *text)
{
	struct synth_device *synth = dev_get_drvdata(dev);
	int i, bytes = 0;

	for (i = 0; i < SYNTH_REGISTERS; i++)
		bytes += sysfs_emit_at(text, bytes, "%u%c", synth->registers[i],
				       i + 1 < SYNTH_REGISTERS ? ' ' : '\n');
	return bytes;
}
static DEVICE_ATTR_RO(registers);

#define SYNTH_SHOWN(_name, _format, _value)                                                                 \
	static ssize_t _name##_show(struct device *dev, struct device_attribute *attribute, char *text) \
	{                                                                                               \
		struct synth_device *synth = dev_get_drvdata(dev);                                      \
                                                                                                        \
		return sysfs_emit(text, _format "\n", _value);                                          \
	}                                                                                               \
	static DEVICE_ATTR_RO(_name)

SYNTH_SHOWN(state, "%s", state_names[synth->state]);
SYNTH_SHOWN(bytes_read, "%llu", synth->bytes_read);
SYNTH_SHOWN(bytes_written, "%llu", synth->bytes_written);
SYNTH_SHOWN(loaded_ok, "%d", synth->loaded_ok);
SYNTH_SHOWN(last_errno, "%d", synth->last_error);
SYNTH_SHOWN(dma_log_is_on, "%d", synth->dma_log_on);

#define SYNTH_PARAM_POINTER(_name) (&param_##_name.attribute.attr)

static struct attribute *synth_attributes[] = {
	SYNTH_PARAM_POINTER(seed),
	SYNTH_PARAM_POINTER(size_bytes),
	SYNTH_PARAM_POINTER(migration_flags),
	SYNTH_PARAM_POINTER(dma_logging),
	SYNTH_PARAM_POINTER(reset_on_open),
	SYNTH_PARAM_POINTER(load_in_write),
	SYNTH_PARAM_POINTER(accept_truncated),
	SYNTH_PARAM_POINTER(precopy_initial_bytes),
	SYNTH_PARAM_POINTER(dirty_bytes_per_s),
	SYNTH_PARAM_POINTER(dirty_bytes_per_info),
	SYNTH_PARAM_POINTER(dirty_bytes_max),
	SYNTH_PARAM_POINTER(dirty_needs_info),
	SYNTH_PARAM_POINTER(empty_is_enomsg),
	SYNTH_PARAM_POINTER(poll),
	SYNTH_PARAM_POINTER(read_blocks),
	SYNTH_PARAM_POINTER(first_read_bytes),
	SYNTH_PARAM_POINTER(read_bytes_max),
	SYNTH_PARAM_POINTER(write_bytes_max),
	SYNTH_PARAM_POINTER(read_delay_ms),
	SYNTH_PARAM_POINTER(write_delay_ms),
	SYNTH_PARAM_POINTER(read_error_at),
	SYNTH_PARAM_POINTER(read_errno),
	SYNTH_PARAM_POINTER(write_error_at),
	SYNTH_PARAM_POINTER(write_errno),
	SYNTH_PARAM_POINTER(error_skips),
	SYNTH_PARAM_POINTER(corrupt_at),
	SYNTH_PARAM_POINTER(truncate_at),
	SYNTH_PARAM_POINTER(dma_page_bytes),
	SYNTH_PARAM_POINTER(dma_report_errno),
	&dev_attr_arc_delay_ms.attr,
	&dev_attr_arc_errno.attr,
	&dev_attr_arc_log.attr,
	&dev_attr_force_error.attr,
	&dev_attr_dma_write.attr,
	&dev_attr_registers.attr,
	&dev_attr_state.attr,
	&dev_attr_bytes_read.attr,
	&dev_attr_bytes_written.attr,
	&dev_attr_loaded_ok.attr,
	&dev_attr_last_errno.attr,
	&dev_attr_dma_log_is_on.attr,
	NULL,
};

static const struct attribute_group synth_group = {
	.name = "synth",
	.attrs = synth_attributes,
};

static const struct attribute_group *synth_groups[] = { &synth_group, NULL };

/* ---- The mediated device's driver and its parent ------------------------------------------- */

static int synth_probe(struct mdev_device *mdev)
{
	struct synth_device *synth = vfio_alloc_device(synth_device, vdev, &mdev->dev, &synth_device_ops);
	int error;

	if (IS_ERR(synth))
		return PTR_ERR(synth);
	dev_set_drvdata(&mdev->dev, synth);
	error = vfio_register_emulated_iommu_dev(&synth->vdev);
	if (error)
		vfio_put_device(&synth->vdev);
	return error;
}

static void synth_remove(struct mdev_device *mdev)
{
	struct synth_device *synth = dev_get_drvdata(&mdev->dev);

	vfio_unregister_group_dev(&synth->vdev);
	vfio_put_device(&synth->vdev);
}

static struct mdev_driver synth_driver = {
	.device_api = VFIO_DEVICE_API_PCI_STRING,
	.max_instances = 64,
	.driver = {
		.name = "godwit_synth",
		.owner = THIS_MODULE,
		.mod_name = KBUILD_MODNAME,
		.dev_groups = synth_groups,
	},
	.probe = synth_probe,
	.remove = synth_remove,
};

static struct mdev_type synth_type = { .sysfs_name = "pci", .pretty_name = "Godwit test device" };
static struct mdev_type *synth_types[] = { &synth_type };
static struct class *synth_class;
static struct device *synth_parent_device;
static struct mdev_parent synth_parent;

static int __init synth_module_init(void)
{
	int error;

	synth_class = class_create("godwit_synth");
	if (IS_ERR(synth_class))
		return PTR_ERR(synth_class);
	synth_parent_device = device_create(synth_class, NULL, MKDEV(0, 0), NULL, "godwit_synth");
	if (IS_ERR(synth_parent_device)) {
		error = PTR_ERR(synth_parent_device);
		goto no_device;
	}
	error = mdev_register_driver(&synth_driver);
	if (error)
		goto no_driver;
	error = mdev_register_parent(&synth_parent, synth_parent_device, &synth_driver, synth_types,
				     ARRAY_SIZE(synth_types));
	if (!error)
		return 0;
	mdev_unregister_driver(&synth_driver);
no_driver:
	device_unregister(synth_parent_device);
no_device:
	class_destroy(synth_class);
	return error;
}

static void __exit synth_module_exit(void)
{
	mdev_unregister_parent(&synth_parent);
	mdev_unregister_driver(&synth_driver);
	device_unregister(synth_parent_device);
	class_destroy(synth_class);
}

module_init(synth_module_init);
module_exit(synth_module_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("A VFIO device for tests: migration state of any size, faults on demand");
#if IS_ENABLED(CONFIG_IOMMUFD_DRIVER)
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 13, 0)
MODULE_IMPORT_NS("IOMMUFD");
#else
MODULE_IMPORT_NS(IOMMUFD);
#endif
#endif
