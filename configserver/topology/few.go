package topology

import (
	"fmt"
	"strings"
)

// Few names up to n of many and counts the rest: "a, b and 7 more".
func Few(names []string, n int) string {
	if len(names) <= n {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:n], ", "), len(names)-n)
}
