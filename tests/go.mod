module github.com/basalt-redis/basalt/tests

go 1.26.0

replace github.com/basalt-redis/basalt/proto => ../proto

require (
	github.com/anishathalye/porcupine v1.0.0
	github.com/basalt-redis/basalt/internal v0.0.0
	github.com/basalt-redis/basalt/proto v0.0.0
	github.com/gomodule/redigo v1.9.3
	github.com/redis/go-redis/v9 v9.23.0
	github.com/redis/rueidis v1.0.79
	golang.org/x/sys v0.48.0
	google.golang.org/grpc v1.79.1
	google.golang.org/protobuf v1.36.11
)

require (
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	go.uber.org/atomic v1.12.0 // indirect
	golang.org/x/net v0.57.0 // indirect
	golang.org/x/text v0.41.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20251202230838-ff82c1b0f217 // indirect
)

replace github.com/basalt-redis/basalt/internal => ../internal
