// Package credentials reads the secrets of a cluster from files and derives
// what servers and proxies need from them.
//
// Each cluster has a folder in the style of a mounted Kubernetes Secret:
//
//	DIR/<cluster>/admin-password    Configserver to servers, user basalt-admin
//	DIR/<cluster>/cluster-secret    root of the proxies' and replicas' passwords
//	DIR/<cluster>/client-password   optional: what applications AUTH with
//
// One secret per line: line 1 is current, line 2 (optional) the one before,
// which is still accepted, so that a rotation never needs two things to change
// at the same instant. Nothing here prints a secret; every type that holds one
// redacts itself.
package credentials

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/basalt-redis/basalt/configserver/topology"
)

// Names of the files in a cluster's folder.
const (
	AdminFile  = "admin-password"
	SecretFile = "cluster-secret"
	ClientFile = "client-password"
)

// Users that Basalt makes in the servers' ACLs.
const (
	AdminUser       = "basalt-admin"
	ProbeUser       = "basalt-probe"
	ReplicationUser = "basalt-replication"
)

const (
	// minSecret is the length in bytes below which a secret is refused: an
	// HMAC is only as strong as its key.
	minSecret = 16
	maxFile   = 4096
)

// Set holds the secrets of one cluster as they were when it was opened. It
// never changes; open again to see what changed on disk.
type Set struct {
	cluster  string
	warnings []string
	// on is a function because fmt, which cannot call methods on unexported
	// fields of others' structs, prints no more of one than its address.
	on func() *files
}

// files are the secrets of each file: one or two, the current one first;
// client may be empty. Those in keptSecret and keptClient are not on file any more,
// see Keeping.
type files struct{ admin, secret, client, keptSecret, keptClient []string }

// Open reads the folder of a cluster that exists. Every error is a
// *topology.PreconditionError that names the file and what to do about it, and never
// its content.
func Open(dir, cluster string) (*Set, error) { return openFolder(dir, cluster, true) }

// OpenNew is Open for a cluster that is about to be created: its secrets may be made
// up.
func OpenNew(dir, cluster string) (*Set, error) { return openFolder(dir, cluster, false) }

func openFolder(dir, cluster string, exists bool) (*Set, error) {
	if err := topology.ValidName("cluster", cluster); err != nil {
		return nil, err
	}
	if dir == "" {
		return nil, topology.Preconditionf("no credentials directory is configured: start the Configserver with --credentials-dir DIR "+
			"and create DIR/%s/%s and DIR/%s/%s", cluster, AdminFile, cluster, SecretFile)
	}
	f := &files{}
	s := &Set{cluster: cluster, on: func() *files { return f }}
	folder := filepath.Join(dir, cluster)
	var err error
	if f.admin, err = s.read(filepath.Join(folder, AdminFile), exists, true, 1); err != nil {
		return nil, err
	}
	if f.secret, err = s.read(filepath.Join(folder, SecretFile), exists, true, minSecret); err != nil {
		return nil, err
	}
	if f.client, err = s.read(filepath.Join(folder, ClientFile), exists, false, 1); err != nil {
		return nil, err
	}
	return s, nil
}

// read returns the one or two secrets of a file.
func (s *Set) read(path string, exists, required bool, shortest int) ([]string, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if !required {
			return nil, nil
		}
		if exists {
			return nil, topology.Preconditionf("credentials of cluster %s are missing: put %s back with the secret that is in use, on its first line; "+
				"no other one will do", s.cluster, path)
		}
		return nil, topology.Preconditionf("credentials of cluster %s are missing: create %s (mode 0600) with the secret on its first line, "+
			"for example: head -c 32 /dev/urandom | base64 > %s", s.cluster, path, path)
	}
	if err != nil {
		return nil, topology.Preconditionf("credentials of cluster %s cannot be read: %v; make the file readable to the Configserver", s.cluster, err)
	}
	if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o007 != 0 {
		s.warnings = append(s.warnings, fmt.Sprintf("%s has mode %04o and is open to every user of the machine: chmod 0600 it", path, info.Mode().Perm()))
	}
	if len(data) > maxFile {
		return nil, topology.Preconditionf("%s holds %d bytes, at most %d are expected: one secret per line, at most two lines", path, len(data), maxFile)
	}
	var secrets []string
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		if len(line) < shortest {
			return nil, topology.Preconditionf("%s: secret %d is shorter than %d bytes: put a longer one there", path, len(secrets)+1, shortest)
		}
		if bytes.ContainsAny(line, " \t\x00") {
			return nil, topology.Preconditionf("%s: secret %d contains white space: put one secret per line without any", path, len(secrets)+1)
		}
		secrets = append(secrets, string(line))
	}
	if err := lines.Err(); err != nil {
		return nil, topology.Preconditionf("%s cannot be read line by line: %v", path, err)
	}
	if len(secrets) > 2 {
		return nil, topology.Preconditionf("%s has %d secrets: keep the current one on line 1 and the one before on line 2, remove the rest", path, len(secrets))
	}
	if required && len(secrets) == 0 {
		which := "a secret"
		if exists {
			which = "the secret that is in use"
		}
		return nil, topology.Preconditionf("%s is empty: put %s on its first line", path, which)
	}
	return secrets, nil
}

// Cluster returns whose secrets these are.
func (s *Set) Cluster() string { return s.cluster }

// Warnings names files whose permissions are too open.
func (s *Set) Warnings() []string { return s.warnings }

// AdminPasswords returns the one or two passwords of basalt-admin, the current
// one first.
func (s *Set) AdminPasswords() []string { return s.on().admin }

// SecretID names the current cluster secret without revealing it.
func (s *Set) SecretID() string { return secretID(s.on().secret[0]) }

// SecretIDs names all cluster secrets on file, the current one first.
func (s *Set) SecretIDs() []string { return secretIDs(s.on().secret) }

// SecretByID returns the cluster secret an id names. The error is a
// *topology.PreconditionError when it is no longer on file.
func (s *Set) SecretByID(id string) (string, error) {
	if secret := named(id, s.on().secret, s.on().keptSecret); secret != "" {
		return secret, nil
	}
	return "", topology.Preconditionf("cluster %s uses the secret with id %s, which is no longer in %s: "+
		"put it back on line 2 until the rotation has ended", s.cluster, id, SecretFile)
}

// ReplicationPassword returns the password of ReplicationUser on a shard's nodes,
// derived from the secret an id names: a replica cannot log in to a server of another
// shard, or of another cluster (uid), whatever address it was told to follow.
func (s *Set) ReplicationPassword(secretID, uid, shard string) (string, error) {
	return s.derive(secretID, "replication\x00"+s.cluster+"\x00"+uid+"\x00"+shard)
}

func (s *Set) derive(id, message string) (string, error) {
	secret, err := s.SecretByID(id)
	if err != nil {
		return "", err
	}
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(message))
	return hex.EncodeToString(mac.Sum(nil)), nil
}

// ClientPasswordSHA256 returns the SHA-256 of each password that applications
// may AUTH with, the current one first; none when they need not.
func (s *Set) ClientPasswordSHA256() [][]byte {
	var sums [][]byte
	for _, password := range s.on().client {
		sum := sha256.Sum256([]byte(password))
		sums = append(sums, sum[:])
	}
	return sums
}

// ClientSecretIDs names the client passwords, in the order of
// ClientPasswordSHA256.
func (s *Set) ClientSecretIDs() []string { return secretIDs(s.on().client) }

// ClientPasswordSHA256ByIDs returns the SHA-256 of those client passwords that
// the ids name, so that proxies accept what the topology says and not what a
// file happens to hold. Ids of passwords no longer on file are skipped; when that
// leaves none, there is one that is nobody's, for no password would let everybody in.
func (s *Set) ClientPasswordSHA256ByIDs(ids []string) [][]byte {
	var sums [][]byte
	for _, id := range ids {
		if password := named(id, s.on().client, s.on().keptClient); password != "" {
			sum := sha256.Sum256([]byte(password))
			sums = append(sums, sum[:])
		}
	}
	if len(ids) > 0 && len(sums) == 0 {
		sums = append(sums, make([]byte, sha256.Size))
	}
	return sums
}

// Keeping is s with those cluster secrets and client passwords of a set of before that
// ids name and that are not on file any more: what is in force goes on working until
// the files are repaired, or another one is put into force.
func (s *Set) Keeping(before *Set, secretIDs, clientIDs []string) *Set {
	f, of := *s.on(), before.on()
	f.keptSecret = kept(secretIDs, f.secret, of.secret, of.keptSecret)
	f.keptClient = kept(clientIDs, f.client, of.client, of.keptClient)
	return &Set{cluster: s.cluster, warnings: s.warnings, on: func() *files { return &f }}
}

func kept(ids, onFile, before, keptBefore []string) (list []string) {
	for _, id := range ids {
		if secret := named(id, before, keptBefore); secret != "" && named(id, onFile) == "" {
			list = append(list, secret)
		}
	}
	return list
}

// named is the secret that an id names; "" when it is in none of the lists.
func named(id string, lists ...[]string) string {
	for _, list := range lists {
		for _, secret := range list {
			if secretID(secret) == id {
				return secret
			}
		}
	}
	return ""
}

// NotOnFile says which of the cluster secrets and client passwords that are in use the
// files do not hold, and what to do; "" when they hold all of them.
func (s *Set) NotOnFile(secretIDs, clientIDs []string) string {
	f := s.on()
	var missing []string
	if slices.ContainsFunc(secretIDs, func(id string) bool { return named(id, f.secret) == "" }) {
		missing = append(missing, "the secret that servers and proxies use now is not in "+SecretFile)
	}
	if slices.ContainsFunc(clientIDs, func(id string) bool { return named(id, f.client) == "" }) {
		missing = append(missing, "a password that applications use now is not in "+ClientFile)
	}
	if len(missing) == 0 {
		return ""
	}
	return fmt.Sprintf("%s: put it back on line 2, or `basaltctl credentials rotate %s` puts what is on file into force", strings.Join(missing, ", and "), s.cluster)
}

// SameAs tells if the files hold the same.
func (s *Set) SameAs(other *Set) bool {
	f, g := s.on(), other.on()
	return slices.Equal(f.admin, g.admin) && slices.Equal(f.secret, g.secret) && slices.Equal(f.client, g.client)
}

func secretID(secret string) string {
	sum := sha256.Sum256([]byte("basalt-secret-id:" + secret))
	return hex.EncodeToString(sum[:8])
}

func secretIDs(secrets []string) []string {
	var ids []string
	for _, secret := range secrets {
		ids = append(ids, secretID(secret))
	}
	return ids
}

// String tells whose secrets these are and nothing else.
func (s Set) String() string { return "credentials of " + s.cluster + " (redacted)" }

// GoString is String, for %#v.
func (s Set) GoString() string { return s.String() }

// Format prints String whatever the verb is.
func (s Set) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) }

// LogValue is String, for slog.
func (s Set) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalJSON is String, so that no encoder leaks a secret.
func (s Set) MarshalJSON() ([]byte, error) { return []byte(strconv.Quote(s.String())), nil }
