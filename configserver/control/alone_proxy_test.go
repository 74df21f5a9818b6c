package control

import (
	"slices"
	"testing"
	"time"
)

// A proxy that tells its clients of no other proxy is sent nothing when one comes or
// goes: with a hundred of them that would be ten thousand messages.
func TestAProxyThatIsAloneIsToldOfNoOther(t *testing.T) {
	r := newRig(t, 1, 1, nil)
	hello := func(id string, alone bool) (ProxyStream, View) {
		s, err := r.loop.Connect(t.Context(), Hello{ID: id, Address: id + ":1", Alone: alone})
		if err != nil {
			t.Fatal(err)
		}
		return s, <-s.Updates()
	}
	names := func(v View) (ids []string) {
		for _, p := range v.Proxies {
			ids = append(ids, p.ID)
		}
		return ids
	}
	alone, first := hello("a", true)
	if len(first.Proxies) != 0 {
		t.Errorf("it is told of %v", first.Proxies)
	}
	told, first := hello("b", false)
	if got := names(first); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("b is told of %v", got)
	}
	third, _ := hello("c", true)
	if got := names(<-told.Updates()); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("b is told of %v", got)
	}
	third.Close()
	if got := names(<-told.Updates()); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("b is told of %v", got)
	}
	select {
	case v := <-alone.Updates():
		t.Errorf("the one that is alone got %v at epoch %d again", names(v), v.Cluster.Epoch)
	case <-time.After(50 * time.Millisecond):
	}
}
