// SPDX-License-Identifier: GPL-2.0-only
/* A saving data_fd: makes the stream as it is read. */
#include <linux/ktime.h>
#include <linux/math64.h>
#include <linux/minmax.h>
#include <linux/sched/signal.h>
#include <linux/sizes.h>
#include <linux/uaccess.h>

#include "pattern.h"
#include "synth.h"

static void grow_dirty(struct synth_stream *stream, u64 bytes)
{
	u64 bytes_max = stream->synth->params.dirty_bytes_max;

	if (bytes_max == 0)
		bytes_max = stream->size_bytes;
	if (stream->dirty_bytes < bytes_max)
		stream->dirty_bytes += min(bytes, bytes_max - stream->dirty_bytes);
}

/* The device goes on dirtying its state for as long as it runs. */
void synth_dirty_by_time(struct synth_stream *stream)
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
	synth_dirty_by_time(stream);
	if (!record_is_done(stream) || !stream->has_begun || !is_precopy(stream->synth->state))
		return true;
	return (!stream->initial_is_queued && stream->initial_bytes) || stream->dirty_ready_bytes;
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
	synth_dirty_by_time(stream);
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

ssize_t synth_read(struct file *file, char __user *to, size_t bytes, loff_t *offset)
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

__poll_t synth_poll(struct file *file, struct poll_table_struct *table)
{
	struct synth_stream *stream = file->private_data;

	poll_wait(file, &stream->changed, table);
	if (READ_ONCE(stream->is_dead))
		return EPOLLIN | EPOLLRDNORM | EPOLLRDHUP;
	return is_readable(stream) ? EPOLLIN | EPOLLRDNORM : 0;
}

/* Wakes those that wait for the device to dirty its state. */
void synth_tick(struct work_struct *work)
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

long synth_stream_ioctl(struct file *file, unsigned int command, unsigned long arg)
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
		synth_dirty_by_time(stream);
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
