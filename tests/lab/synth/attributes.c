// SPDX-License-Identifier: GPL-2.0-only
/* The switches in sysfs: see README.md. */
#include <linux/kstrtox.h>
#include <linux/sizes.h>
#include <linux/string.h>
#include <linux/sysfs.h>

#include "synth.h"

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
		synth_apply_features(synth);
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
	return match_string(synth_state_names, VFIO_DEVICE_STATE_NR, name);
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
				bytes += sysfs_emit_at(text, bytes, "%s %s %u\n", synth_state_names[now],
						       synth_state_names[next], value);
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
		bytes += sysfs_emit_at(text, bytes, "%s %s\n", synth_state_names[synth->arc_log[i][0]],
				       synth_state_names[synth->arc_log[i][1]]);
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
	synth_end_stream(synth);
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
	error = synth->dma_log_on ? synth_log_dma(synth, iova, length) : -ENODATA;
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

SYNTH_SHOWN(state, "%s", synth_state_names[synth->state]);
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

const struct attribute_group *synth_groups[] = { &synth_group, NULL };
