// Package acl decides what an application may do: it compiles the users that
// the topology brings into rights, and checks requests against them. It does no
// I/O.
//
// # Why the proxy decides, and where the servers do
//
// Redis has ACLs of its own, and applications could log in to the servers through
// the proxies. They do not, for two reasons. Clients of a proxy share connections to
// the servers; with users of their own they could not. And what keeps a stale proxy
// away from a server that changed hands is the server's list of users: it accepts
// the proxies' users of the newest generation and nobody else. A user of an
// application that could log in there would be a way around the epochs, for it would
// be valid at servers that are no masters any more.
//
// So the proxies know the applications, and check what they send. Of a script or a
// function a proxy sees the arguments only: what it touches is decided in the server.
// Therefore every server has, beside the proxies' users of a generation, one user for
// each set of rights of users with limits who may run scripts. Its name is that of
// the generation and that of the rights (Limits.Rights); only proxies know its
// password, and it goes with the generation. The proxy runs
// the scripts of such users over connections that are logged in as it
// (session.Client.changeOver). As the rights are in the name, a proxy that obeys a
// change of users cannot get the rights of before from a server that was not told of
// it: it does not find the name there, and the scripts wait.
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
