// Command basaltctl administers clusters through a Configserver, and runs a
// playground on this machine.
package main

import (
	"os"

	"github.com/basalt-redis/basalt/configserver/cli"
)

func main() {
	os.Exit(cli.Main(os.Args[1:], os.Stdout, os.Stderr))
}
