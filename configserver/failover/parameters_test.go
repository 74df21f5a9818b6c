package failover

import (
	"context"
	"fmt"
	"testing"

	"github.com/basalt-redis/basalt/configserver/topology"
)

// picky is a server that knows some parameters, and counts what it is asked.
type picky struct {
	unknown map[string]string
	has     map[string]string
	calls   int
}

func (p *picky) SetConfig(_ context.Context, settings []topology.Setting) (string, error) {
	p.calls++
	for _, s := range settings {
		if reply := p.unknown[s.Name]; reply != "" {
			return reply, nil
		}
	}
	for _, s := range settings {
		p.has[s.Name] = s.Value
	}
	return "", nil
}

// Of as many parameters as are kept, a few that a server does not know keep it
// neither from the rest nor for long: its admission has three seconds.
func TestRefusedSettingsCostFewCalls(t *testing.T) {
	var settings []topology.Setting
	for i := range topology.MaxSettings {
		settings = append(settings, topology.Setting{Name: fmt.Sprintf("p%03d", i), Value: "1"})
	}
	server := &picky{has: map[string]string{}, unknown: map[string]string{"p007": "ERR Unknown option", "p333": "ERR Unknown option"}}
	refused, err := applySettings(t.Context(), server, settings)
	if err != nil || len(refused) != 2 || refused[0].Name != "p007" || refused[1].Name != "p333" {
		t.Errorf("refused %v, %v", refused, err)
	}
	if len(server.has) != topology.MaxSettings-2 || server.calls > 40 {
		t.Errorf("it has %d parameters after %d calls", len(server.has), server.calls)
	}
	// One that is busy is not asked again and again.
	server = &picky{has: map[string]string{}, unknown: map[string]string{"p333": "BUSY Redis is busy running a script"}}
	if refused, err = applySettings(t.Context(), server, settings); err != nil || !anyTransient(refused) || server.calls != 1 {
		t.Errorf("refused %v, %v after %d calls", refused, err, server.calls)
	}
}
