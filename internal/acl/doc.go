// Package acl is the language of Redis's ACL rules: users, what they may do, and
// the words that change it. It does no I/O.
//
// Both sides need it. The Configserver keeps users, and applies to them what
// ACL SETUSER and basaltctl ask for; a proxy checks such a request first, so that
// a mistake is answered at once and in Redis's words, and compiles users into
// what it enforces (proxy/acl). Neither imports the other, so the language lives
// here, with the names and categories of the commands that it speaks of.
//
// A user has two texts. Describe is the line of ACL LIST. Text is the line that
// is stored and sent: the same for every user that people write, but exact for
// those that ACL LIST cannot say without doubt (a pattern with a parenthesis, a
// name with bytes that are no text). Parse reads a Text.
package acl

//go:generate sh -c "cd ../../proxy && go generate ./command"
