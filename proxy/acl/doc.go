// Package acl decides what an application may do: it compiles the users that
// the topology brings into rights, and checks requests against them. It does no
// I/O.
//
// # Why the proxy decides, and not the servers
//
// Redis has ACLs of its own, and servers could be told of the applications'
// users. They are not, for two reasons. Clients of a proxy share connections to
// the servers; with users of their own they could not. And what keeps a stale
// proxy away from a server that changed hands is the server's list of users: it
// accepts the proxies' user of the newest generation and nobody else. A user of
// an application that could log in there would be a way around the epochs, for
// it would be valid at servers that are no masters any more.
//
// So every server knows the proxies, and the proxies know the applications. The
// price is that code which runs in a server, a script or a function, runs with
// the proxies' rights: it may touch keys that are not among its arguments, and
// no proxy sees it. Therefore only users whose rights have no limit may run
// scripts (DeniedScript). Keys that a script declares say nothing about what it
// touches, and a server without cluster mode does not hold it to them.
//
// # How
//
//  1. The Configserver sends all users as text (internal/acl). Compile makes
//     Users of them, which never change; users whose text is the same stay the
//     same *User, so that a client sees by its pointer whether anything changed.
//  2. A client has a *User, and its *Limits, which is nil for users that may do
//     everything: that is all that requests of such users cost.
//  3. Every request of other users is checked at one door (session.Client.handle)
//     before anything is done with it, and those of a transaction again at EXEC
//     when the limits changed meanwhile.
//  4. When Users change, each loop goes through its clients, before it
//     acknowledges the epoch: those of users that are gone are closed, those that
//     listen to channels they may not are, too, all others get their new limits.
//     So ACL SETUSER, which waits for the acks of all proxies, returns when no
//     proxy lets the old rights pass.
//
// What cannot be read gives no rights: a user whose text this version does not
// understand is off.
package acl
