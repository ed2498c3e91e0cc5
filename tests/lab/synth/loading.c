// SPDX-License-Identifier: GPL-2.0-only
/* A resuming data_fd: checks the stream as it is written. */
#include <linux/minmax.h>
#include <linux/sched/signal.h>
#include <linux/sizes.h>
#include <linux/uaccess.h>

#include "pattern.h"
#include "synth.h"

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

ssize_t synth_write(struct file *file, const char __user *from, size_t bytes, loff_t *offset)
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

int synth_finish_loading(struct synth_device *synth)
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
