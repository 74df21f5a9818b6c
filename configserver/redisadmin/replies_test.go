package redisadmin

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/basalt-redis/basalt/internal/redistest/replies"
)

// TestInfoOfEveryServer: what each server says of itself is understood.
func TestInfoOfEveryServer(t *testing.T) {
	for _, s := range replies.Servers(t) {
		t.Run(s.Name, func(t *testing.T) {
			info := func(file string) Info { return ParseInfo(s.Text(t, file)) }
			master, replica, cut, promoted := info("info-master"), info("info-replica"), info("info-cut"), info("info-promoted")
			for what, i := range map[string]Info{"master": master, "replica": replica, "cut": cut, "promoted": promoted, "loading": info("info-loading")} {
				if len(i.RunID) != 40 || i.Mode != "standalone" || i.Software != (Software{s.Valkey, s.Version}) || i.UsedMemory <= 0 || i.AppendOnly {
					t.Errorf("%s: %+v", what, i)
				}
				if i.Loading != (what == "loading") {
					t.Errorf("%s: loading %v", what, i.Loading)
				}
			}
			if !master.Master || len(master.ReplID) != 40 || master.Offset <= 0 || master.SecondOffset != -1 || master.Replicas != 1 ||
				len(master.Online) != 1 || !strings.HasPrefix(master.Online[0], "127.0.0.1:") || master.Keys != 4 || master.Saved <= 0 || master.Saving {
				t.Errorf("master: %+v", master)
			}
			if everything := info("info-everything"); everything.Keys != 4 || everything.Offset != master.Offset || !slices.Equal(everything.Online, master.Online) {
				t.Errorf("everything: %+v", everything)
			}
			if replica.Master || !replica.LinkUp || replica.Syncing || replica.LastIO < 0 || replica.LastIO > 10*time.Second || replica.LinkDownFor != -1 ||
				!strings.HasPrefix(replica.MasterAddress, "127.0.0.1:") || replica.Offset != master.Offset || replica.ReplID != master.ReplID || replica.Keys != 4 {
				t.Errorf("replica: %+v, of %+v", replica, master)
			}
			if cut.Master || cut.LinkUp || cut.LastIO != -1 || cut.LinkDownFor < 0 || cut.ReplID != master.ReplID || cut.MasterAddress != "127.0.0.1:1" {
				t.Errorf("cut off: %+v", cut)
			}
			if !promoted.Master || promoted.ReplID2 != master.ReplID || promoted.SecondOffset <= 0 || promoted.ReplID == master.ReplID || promoted.Keys != 4 {
				t.Errorf("promoted: %+v", promoted)
			}
			if !replica.GoesOn(&master) || !cut.GoesOn(&master) || !master.GoesOn(&promoted) || promoted.GoesOn(&master) || !cut.GoesOn(&promoted) {
				t.Error("who can go on from whom")
			}
			behind := replica
			behind.Offset = master.Backlog - 2
			if master.Backlog < 1 || behind.GoesOn(&master) {
				t.Errorf("without a full copy beyond the backlog, %d", master.Backlog)
			}
			if !info("info-save-failed").SaveFailed || master.SaveFailed {
				t.Error("a save that failed")
			}
			if merged := master.Merge(ParseInfo("# Replication\r\nrole:master\r\nmaster_repl_offset:77\r\n")); merged.Software != master.Software ||
				merged.Mode != "standalone" || merged.Offset != 77 {
				t.Errorf("merged: %+v", merged)
			}
		})
	}
}

// TestErrorsOfEveryServer: a refused login is told from all other errors.
func TestErrorsOfEveryServer(t *testing.T) {
	for _, s := range replies.Servers(t) {
		for _, file := range []string{"error-noauth", "error-wrongpass", "error-noperm", "error-busy", "error-loading", "error-masterdown", "error-misconf",
			"error-noreplicas", "error-oom", "error-readonly", "error-parameter"} {
			text := s.Text(t, file)
			want := slices.Contains([]string{"error-noauth", "error-wrongpass", "error-noperm"}, file)
			if got := isLoginError(errors.New(text)); got != want {
				t.Errorf("%s: %q is a refused login: %v", s.Name, text, got)
			}
		}
	}
}

// TestUsersOfEveryServer: the default user in ACL LIST.
func TestUsersOfEveryServer(t *testing.T) {
	for _, s := range replies.Servers(t) {
		found := false
		for line := range strings.SplitSeq(s.Raw(t, "acl-list"), "\r\n") {
			if strings.HasPrefix(line, "user default ") {
				found = true
				if d := DefaultUserOf(line); d != (DefaultUser{}) {
					t.Errorf("%s: %q: %+v", s.Name, line, d)
				}
			}
		}
		if !found {
			t.Errorf("%s: no line of the default user", s.Name)
		}
	}
}

// TestClientsOfEveryServer: the administrator's connections in CLIENT LIST.
func TestClientsOfEveryServer(t *testing.T) {
	for _, s := range replies.Servers(t) {
		ids := adminsOf(s.Text(t, "client-list"), "basalt-owner-", "basalt-owner-2")
		if len(ids) != 1 {
			t.Errorf("%s: %q", s.Name, ids)
		}
		if ids := adminsOf(s.Text(t, "client-list"), "basalt-owner-", "basalt-owner-1"); len(ids) != 0 {
			t.Errorf("%s: its own: %q", s.Name, ids)
		}
	}
}

func TestLoads(t *testing.T) {
	for line, want := range map[string]bool{
		"Redis 7.0.15 of Redis 6.2.16": true, "Redis 6.2.16 of Redis 7.0.15": false, "Redis 7.0.15 of Redis 7.2.6": false,
		"Redis 7.2.6 of Redis 7.4.1": false, "Redis 7.4.1 of Redis 7.4.0": true, "Redis 7.4.0 of Redis 8.0.2": true, "Redis 8.0.2 of Redis 6.2.16": true,
		"Redis 6.0.16 of Redis 6.2.16": true,
		"Valkey 8.0.1 of Redis 7.2.6":  true, "Valkey 7.2.7 of Redis 6.2.16": true, "Valkey 8.0.1 of Redis 7.4.1": false, "Valkey 9.0.0 of Redis 7.4.1": false,
		"Valkey 9.0.0 of Redis 8.0.2": false, "Valkey 9.0.0 of Redis 7.0.15": true,
		"Redis 7.2.6 of Valkey 8.0.1": true, "Redis 7.4.1 of Valkey 7.2.7": true, "Redis 7.0.15 of Valkey 7.2.7": false, "Redis 8.0.2 of Valkey 9.0.0": false,
		"Valkey 7.2.7 of Valkey 8.0.1": true, "Valkey 9.0.0 of Valkey 8.0.1": true, "Valkey 8.0.1 of Valkey 9.0.0": false, "Valkey 8.0.1 of Valkey 9.1.0": true,
		// Not released: nothing is known of its format.
		"Redis 7.0.15 of Valkey 255.255.255": true, "Valkey 255.255.255 of Redis 7.4.1": true,
		"Redis  of Redis 7.4.1": true, "Redis 7.0.15 of Redis ": true,
	} {
		a, b, _ := strings.Cut(line, " of ")
		if got := softwareNamed(a).Loads(softwareNamed(b)); got != want {
			t.Errorf("%s: %v", line, got)
		}
	}
}

func softwareNamed(text string) Software {
	name, version, _ := strings.Cut(text, " ")
	return Software{Valkey: name == "Valkey", Version: version}
}
