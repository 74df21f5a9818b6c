package credentials

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/basalt-redis/basalt/configserver/topology"
)

const (
	secretOne = "first-cluster-secret-0123456789"
	secretTwo = "second-cluster-secret-012345678"
)

// write makes a folder of secrets of cluster "c".
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "c"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, "c", name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func mustOpen(t *testing.T, files map[string]string) *Set {
	t.Helper()
	s, err := Open(write(t, files), "c")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestDerived(t *testing.T) {
	s := mustOpen(t, map[string]string{
		AdminFile: "admin-new\nadmin-old\n", SecretFile: secretTwo + "\r\n" + secretOne + "\n", ClientFile: "client-1\n",
	})
	if got := s.AdminPasswords(); !slices.Equal(got, []string{"admin-new", "admin-old"}) {
		t.Errorf("%d admin passwords", len(got))
	}
	ids := s.SecretIDs()
	if len(ids) != 2 || ids[0] != s.SecretID() || len(ids[0]) != 16 {
		t.Errorf("secret ids %v", ids)
	}
	// Known values, so that no change of the derivation goes unnoticed: proxies
	// and servers of a running cluster hold what it gave before.
	if got, want := ids[1], fmt.Sprintf("%x", sha256.Sum256([]byte("basalt-secret-id:"+secretOne)))[:16]; got != want {
		t.Errorf("secret id %s, want %s", got, want)
	}
	password, err := s.ScriptPassword(ids[1], "", "shard-0", 7)
	if err != nil || password != "ada5f64defb6d085abd4cccfa826bb7e8630362d2a4c1678f867983936c135fe" {
		t.Errorf("password of scripts %s, %v", password, err)
	}
	seen := map[string]bool{}
	for _, of := range []struct{ uid, shard string }{{"", "shard-0"}, {"", "shard-1"}, {"uid-1", "shard-0"}, {"uid-1", "shard-1"}} {
		replication, err := s.ReplicationPassword(ids[1], of.uid, of.shard)
		if err != nil || seen[replication] {
			t.Errorf("replication password %s of %v, %v: want one that no other shard has", replication, of, err)
		}
		seen[replication] = true
	}
	for _, of := range []struct{ id, uid string }{{ids[0], ""}, {ids[1], ""}, {ids[0], "uid-1"}, {ids[1], "uid-1"}, {ids[0], "uid-2"}} {
		for _, shard := range []string{"shard-0", "shard-1"} {
			for generation := range uint64(3) {
				scripts, err := s.ScriptPassword(of.id, of.uid, shard, generation)
				key, err2 := s.SeatKey(of.id, of.uid, shard, generation)
				made := []string{scripts, key}
				for _, seat := range []Seat{{0, 1}, {0, 2}, {1, 1}, {1, 11}, {11, 1}} {
					made = append(made, SeatPassword(key, seat))
				}
				for i, p := range made {
					if err != nil || err2 != nil || seen[p] {
						t.Errorf("password %d of %v %s %d is not new: %v, %v", i, of, shard, generation, err, err2)
					}
					seen[p] = true
				}
			}
		}
	}
	var precondition *topology.PreconditionError
	if _, err := s.SeatKey("0000000000000000", "uid", "shard-0", 1); !errors.As(err, &precondition) {
		t.Errorf("unknown secret: %v", err)
	}
	sum := sha256.Sum256([]byte("client-1"))
	if got := s.ClientPasswordSHA256(); len(got) != 1 || !bytes.Equal(got[0], sum[:]) {
		t.Errorf("client passwords %x", got)
	}
	if got := s.ClientPasswordSHA256ByIDs(append(s.ClientSecretIDs(), "unknown")); len(got) != 1 || !bytes.Equal(got[0], sum[:]) {
		t.Errorf("client passwords by id %x", got)
	}
}

func TestClientPasswordIsOptional(t *testing.T) {
	for _, files := range []map[string]string{
		{AdminFile: "a", SecretFile: secretOne},
		{AdminFile: "a", SecretFile: secretOne, ClientFile: "\n"},
	} {
		if s := mustOpen(t, files); len(s.ClientPasswordSHA256()) != 0 || len(s.ClientSecretIDs()) != 0 {
			t.Error("a client password out of nothing")
		}
	}
}

func TestProblemsNameTheFile(t *testing.T) {
	for name, tc := range map[string]struct {
		files map[string]string
		want  string
	}{
		"missing admin":  {map[string]string{SecretFile: secretOne}, "with the secret that is in use"},
		"missing secret": {map[string]string{AdminFile: "a"}, SecretFile},
		"empty":          {map[string]string{AdminFile: "\n\n", SecretFile: secretOne}, "is empty"},
		"short":          {map[string]string{AdminFile: "a", SecretFile: "hunter2"}, "shorter than 16"},
		"three":          {map[string]string{AdminFile: "a\nb\nc", SecretFile: secretOne}, "3 secrets"},
		"white space":    {map[string]string{AdminFile: "hunter2 x", SecretFile: secretOne}, "white space"},
		"huge":           {map[string]string{AdminFile: strings.Repeat("hunter2\n", 1000), SecretFile: secretOne}, "8000 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := write(t, tc.files)
			_, err := Open(dir, "c")
			var precondition *topology.PreconditionError
			if !errors.As(err, &precondition) {
				t.Fatalf("got %v", err)
			}
			if !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), filepath.Join(dir, "c")) {
				t.Errorf("%v", err)
			}
			if strings.Contains(err.Error(), "urandom") {
				t.Errorf("a secret that no server has is of no use: %v", err)
			}
			if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), secretOne) {
				t.Errorf("a secret in %v", err)
			}
		})
	}
	if _, err := OpenNew(t.TempDir(), "c"); err == nil || !strings.Contains(err.Error(), "urandom") {
		t.Errorf("a new cluster's: %v", err)
	}
	if _, err := Open("", "c"); err == nil || !strings.Contains(err.Error(), "--credentials-dir") {
		t.Errorf("no directory: %v", err)
	}
	if _, err := Open(t.TempDir(), "../c"); err == nil {
		t.Error("a name led out of the directory")
	}
}

func TestWhatIsInUseIsKept(t *testing.T) {
	before := mustOpen(t, map[string]string{AdminFile: "a", SecretFile: secretOne, ClientFile: "client-1\nclient-0"})
	secrets, clients := before.SecretIDs(), before.ClientSecretIDs()[:1]
	if got := before.NotOnFile(secrets, clients); got != "" || !before.SameAs(before) {
		t.Errorf("all is there: %q", got)
	}
	now := mustOpen(t, map[string]string{AdminFile: "a", SecretFile: secretTwo})
	if now.SameAs(before) {
		t.Error("nothing has changed")
	}
	if got := now.ClientPasswordSHA256ByIDs(clients); len(got) != 1 || !bytes.Equal(got[0], make([]byte, 32)) {
		t.Errorf("passwords %x instead of one that is nobody's", got)
	}
	for range 2 { // once kept, for ever kept
		now = now.Keeping(before, secrets, clients)
		before = now
		if secret, err := now.SecretByID(secrets[0]); err != nil || secret != secretOne {
			t.Errorf("the secret is lost: %v", err)
		}
		sum := sha256.Sum256([]byte("client-1"))
		if got := now.ClientPasswordSHA256ByIDs(clients); len(got) != 1 || !bytes.Equal(got[0], sum[:]) {
			t.Errorf("passwords %x", got)
		}
		if got := now.NotOnFile(secrets, clients); !strings.Contains(got, SecretFile) || !strings.Contains(got, ClientFile) {
			t.Errorf("not said to be missing: %q", got)
		}
	}
	now = now.Keeping(before, now.SecretIDs(), nil)
	if _, err := now.SecretByID(secrets[0]); err == nil {
		t.Error("a secret that is in use no more is kept")
	}
}

func TestOpenFilesAreWarnedAbout(t *testing.T) {
	dir := write(t, map[string]string{AdminFile: "a", SecretFile: secretOne})
	if err := os.Chmod(filepath.Join(dir, "c", SecretFile), 0o644); err != nil {
		t.Fatal(err)
	}
	s, err := Open(dir, "c")
	if err != nil || len(s.Warnings()) != 1 || !strings.Contains(s.Warnings()[0], SecretFile) {
		t.Errorf("warnings %v, %v", s.Warnings(), err)
	}
}

func TestNothingPrintsASecret(t *testing.T) {
	s := mustOpen(t, map[string]string{AdminFile: "hunter2-admin", SecretFile: secretOne, ClientFile: "hunter2-client"})
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "set", s, "value", *s)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "set", s, "value", *s)
	data, err := json.Marshal(struct{ S *Set }{s})
	if err != nil {
		t.Fatal(err)
	}
	printed := log.String() + string(data)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		printed += fmt.Sprintf(verb, s) + fmt.Sprintf(verb, *s) + fmt.Sprintf(verb, struct{ In *Set }{s}) +
			fmt.Sprintf(verb, struct{ in *Set }{s}) + fmt.Sprintf(verb, struct{ in Set }{*s})
	}
	for _, secret := range []string{"hunter2", secretOne, fmt.Sprintf("%x", secretOne), fmt.Sprintf("%x", "hunter2")} {
		if strings.Contains(printed, secret) {
			t.Errorf("%q was printed: %s", secret, printed)
		}
	}
}
