package reactor

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/basalt-redis/basalt/proxy/command"
)

// TestLongCommandsAreLoggedAtOnce: the loop must not stand still for arguments that are
// not kept.
func TestLongCommandsAreLoggedAtOnce(t *testing.T) {
	const args = 100_000
	raw := []byte(fmt.Sprintf("*%d\r\n$4\r\nMGET\r\n%s", args, strings.Repeat("$1\r\nk\r\n", args-1)))
	spec, _ := command.Lookup([][]byte{[]byte("mget")})
	want := append([]string{"MGET"}, slices.Repeat([]string{"k"}, slowArgs-2)...)
	want = append(want, fmt.Sprintf("... (%d more arguments)", args-slowArgs+1))
	if got := slowRequest(spec, raw); !slices.Equal(got, want) {
		t.Fatal(got)
	}
	if got := slowRequest(spec, []byte("MGET a  b\r\n")); !slices.Equal(got, []string{"MGET", "a", "b"}) {
		t.Error(got)
	}
	if n := testing.AllocsPerRun(10, func() { slowRequest(spec, raw) }); n > 2*slowArgs {
		t.Errorf("%v allocations", n)
	}
}
