package redisadmin

import (
	"cmp"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// Info is what a server says of itself (INFO). Numbers are -1 when the server
// did not say them.
type Info struct {
	// RunID names the incarnation: random, new at every start of the process.
	RunID string
	// Software and its version.
	Software Software
	// Mode is "standalone", "cluster" or "sentinel".
	Mode    string
	Loading bool

	// Master: the role is master, not replica.
	Master bool
	// MasterAddress is what a replica was told to follow, "host:port".
	MasterAddress string
	// LinkUp: a replica's replication link is up.
	LinkUp bool
	// LinkDownFor is how long the link has been down, -1 if it is up or never
	// was (master_link_down_since_seconds, whole seconds).
	LinkDownFor time.Duration
	// LastIO is how long ago a replica last heard its master, -1 while the link
	// is down (master_last_io_seconds_ago, whole seconds).
	LastIO time.Duration
	// Syncing: a replica is receiving a full copy; SyncPercent of it arrived.
	Syncing     bool
	SyncPercent int
	// Offset in bytes of the replication stream: for a replica what it applied
	// (slave_repl_offset), for a master what it wrote (master_repl_offset).
	Offset int64
	// ReplID names the history the offset counts in; ReplID2 the one before,
	// which a promoted replica continues up to SecondOffset.
	ReplID       string
	ReplID2      string
	SecondOffset int64
	// Backlog is the first offset from which others can go on without a full copy, -1
	// when nobody can (repl_backlog_first_byte_offset).
	Backlog int64
	// Replicas connected to this server; Online are the "ip:port" of those that
	// get the stream of writes and acknowledged some of it. A replica's link is
	// up earlier than that, and INFO calls it online: the stream begins with its
	// first acknowledgement, which may take a second.
	Replicas int
	Online   []string

	Keys       int64
	UsedMemory int64
	// MaxMemory is the limit in bytes, 0 when there is none (maxmemory).
	MaxMemory int64
	// Clients are connected, the Configserver's own connections included; Commands
	// were executed since the server started.
	Clients, Commands int64

	// AppendOnly: the server keeps an append-only file and loaded it when it
	// started (aof_enabled).
	AppendOnly bool
	// Saving: an RDB file is being written in the background. Saved is when the
	// last one was finished, in seconds since 1970; SaveFailed: the last attempt
	// did not succeed.
	Saving     bool
	Saved      int64
	SaveFailed bool
	// AppendFailed: the last write or rewrite of the append-only file did not succeed.
	AppendFailed bool
}

// ParseInfo reads the text of INFO; sections that are missing leave -1 or the
// zero value.
func ParseInfo(text string) Info {
	info := Info{LinkDownFor: -1, LastIO: -1, Offset: -1, SecondOffset: -1, Backlog: -1, Keys: -1, UsedMemory: -1, MaxMemory: -1, Clients: -1, Commands: -1, Saved: -1}
	fields := make(map[string]string, strings.Count(text, "\n"))
	keys, keyspace, inKeyspace := int64(0), false, false
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if title, ok := strings.CutPrefix(line, "# "); ok {
			inKeyspace = title == "Keyspace"
			keyspace = keyspace || inKeyspace
			continue
		}
		field, value, ok := strings.Cut(line, ":")
		if !ok {
			continue
		}
		if inKeyspace && strings.HasPrefix(field, "db") {
			count, _, _ := strings.Cut(strings.TrimPrefix(value, "keys="), ",")
			n, _ := strconv.ParseInt(count, 10, 64)
			keys += n
			continue
		}
		if strings.HasPrefix(field, "slave") && strings.Contains(value, "state=online,") {
			if strings.Contains(value, ",offset=0,") {
				continue
			}
			info.Online = append(info.Online, replicaAddress(value))
			continue
		}
		fields[field] = value
	}
	number := func(field string) int64 {
		n, err := strconv.ParseInt(fields[field], 10, 64)
		if err != nil {
			return -1
		}
		return n
	}
	seconds := func(field string) time.Duration {
		if n := number(field); n >= 0 {
			return time.Duration(n) * time.Second
		}
		return -1
	}
	info.RunID, info.Software = fields["run_id"], softwareOf(fields)
	// Valkey from 8.0 says server_mode, unless extended-redis-compatibility is on.
	info.Mode = cmp.Or(fields["redis_mode"], fields["server_mode"])
	info.Loading = fields["loading"] == "1" || fields["async_loading"] == "1"
	info.Master = fields["role"] == "master"
	if host := fields["master_host"]; host != "" {
		info.MasterAddress = join(host, fields["master_port"])
	}
	info.LinkUp = fields["master_link_status"] == "up"
	info.LinkDownFor = seconds("master_link_down_since_seconds")
	info.LastIO = seconds("master_last_io_seconds_ago")
	info.Syncing = fields["master_sync_in_progress"] == "1"
	if total := number("master_sync_total_bytes"); info.Syncing && total > 0 {
		info.SyncPercent = int(100 * max(0, number("master_sync_read_bytes")) / total)
	}
	info.ReplID, info.ReplID2 = fields["master_replid"], fields["master_replid2"]
	info.SecondOffset = number("second_repl_offset")
	info.Offset = number("master_repl_offset")
	if fields["role"] == "slave" {
		info.Offset = number("slave_repl_offset")
	}
	if fields["repl_backlog_active"] == "1" {
		info.Backlog = number("repl_backlog_first_byte_offset")
	}
	info.Replicas = int(max(0, number("connected_slaves")))
	if keyspace {
		info.Keys = keys
	}
	info.UsedMemory, info.MaxMemory = number("used_memory"), number("maxmemory")
	info.Clients, info.Commands = number("connected_clients"), number("total_commands_processed")
	info.AppendOnly = fields["aof_enabled"] == "1"
	info.Saving, info.Saved = fields["rdb_bgsave_in_progress"] == "1", number("rdb_last_save_time")
	info.SaveFailed = fields["rdb_last_bgsave_status"] == "err"
	info.AppendFailed = fields["aof_last_write_status"] == "err" || fields["aof_last_bgrewrite_status"] == "err"
	return info
}

// replicaAddress reads "ip=10.0.0.7,port=6379,state=online,…".
func replicaAddress(line string) string {
	var ip, port string
	for part := range strings.SplitSeq(line, ",") {
		name, value, _ := strings.Cut(part, "=")
		switch name {
		case "ip":
			ip = value
		case "port":
			port = value
		}
	}
	return join(ip, port)
}

// GoesOn tells if a server that becomes a replica of a master can go on where it stands,
// without a full copy.
func (i *Info) GoesOn(master *Info) bool {
	next := i.Offset + 1
	return i.Offset >= 0 && master.Backlog >= 0 && next >= master.Backlog &&
		(i.ReplID == master.ReplID && i.Offset <= master.Offset || i.ReplID == master.ReplID2 && next <= master.SecondOffset)
}

// Merge takes from a newer, partial Info (INFO replication) what it says and
// keeps the rest.
func (i Info) Merge(replication Info) Info {
	whole := i
	i = replication
	i.RunID, i.Software, i.Mode = whole.RunID, whole.Software, whole.Mode
	i.Loading, i.Keys, i.UsedMemory = whole.Loading, whole.Keys, whole.UsedMemory
	i.MaxMemory, i.Clients, i.Commands = whole.MaxMemory, whole.Clients, whole.Commands
	i.AppendOnly, i.Saving, i.Saved, i.SaveFailed, i.AppendFailed = whole.AppendOnly, whole.Saving, whole.Saved, whole.SaveFailed, whole.AppendFailed
	return i
}

// Like tells if a server says the same of itself as before, but for what grows and
// counts while nothing happens.
func (i Info) Like(before Info) bool {
	for _, of := range []*Info{&i, &before} {
		of.Offset, of.Backlog, of.LastIO, of.LinkDownFor, of.SyncPercent, of.Keys, of.UsedMemory, of.Saved = 0, 0, 0, 0, 0, 0, 0, 0
		of.Clients, of.Commands = 0, 0
	}
	return reflect.DeepEqual(i, before)
}

func join(host, port string) string {
	if strings.Contains(host, ":") {
		return "[" + host + "]:" + port
	}
	return host + ":" + port
}
