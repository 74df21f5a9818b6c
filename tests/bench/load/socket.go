package load

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// rawRead and rawWrite do not tell the scheduler: the sockets are
// non-blocking, so the calls come back at once, and the generator's share of
// the machine stays small. b must not be empty.

func rawRead(fd int, b []byte) (int, unix.Errno) {
	n, _, err := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	return int(n), err
}

func rawWrite(fd int, b []byte) (int, unix.Errno) {
	n, _, err := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	return int(n), err
}
