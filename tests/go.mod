module github.com/basalt-redis/basalt/tests

go 1.26.0

replace github.com/basalt-redis/basalt/proto => ../proto

require (
	github.com/basalt-redis/basalt/internal v0.0.0
	github.com/basalt-redis/basalt/proto v0.0.0
)

require (
	github.com/anishathalye/porcupine v1.0.0 // indirect
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/redis/go-redis/v9 v9.23.0 // indirect
	go.uber.org/atomic v1.12.0 // indirect
	golang.org/x/net v0.48.0 // indirect
	golang.org/x/sys v0.48.0 // indirect
	golang.org/x/text v0.32.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20251202230838-ff82c1b0f217 // indirect
	google.golang.org/grpc v1.79.1 // indirect
	google.golang.org/protobuf v1.36.11 // indirect
	pgregory.net/rapid v1.2.0 // indirect
)

replace github.com/basalt-redis/basalt/internal => ../internal
