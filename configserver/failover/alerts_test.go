package failover

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// An alert on a code that no problem has would never fire.
func TestAlertsNameProblems(t *testing.T) {
	rules, err := os.ReadFile("../../deploy/alerts/basalt.rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile(`code=~?"([^"]+)"`).FindAllStringSubmatch(string(rules), -1)
	if len(named) == 0 {
		t.Fatal("no alert is about the code of a problem")
	}
	for _, codes := range named {
		for _, code := range strings.Split(codes[1], "|") {
			if RowOf(code) == nil {
				t.Errorf("an alert is about %s, which is no problem of the table", code)
			}
		}
	}
}
