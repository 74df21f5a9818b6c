package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/basalt-redis/basalt/internal/acl"
	basaltv1 "github.com/basalt-redis/basalt/proto/basalt/v1"
)

func (a *app) aclCommand() *cobra.Command {
	return group("acl", "List, make, change and delete the users that applications log in as", a.aclList(), a.aclSet(), a.aclDelete())
}

func (a *app) aclList() *cobra.Command {
	return &cobra.Command{
		Use: "list [CLUSTER]", Aliases: []string{"ls"}, Short: "List users and what they may do", Args: between(0, 1),
		Long: `List users and what they may do. The rules are those of Redis's ACL LIST; how
one logs in is told in a column of its own. With -o json the SHA-256 of each
password is printed, too.`,
		RunE: a.about(callTimeout, 0, func(ctx context.Context, name string, _ []string) error {
			list, err := read(ctx, a.users().ListUsers, &basaltv1.ListUsersRequest{Cluster: name})
			if err != nil {
				return err
			}
			if a.output == "json" {
				return a.printProto(list)
			}
			t := newTable("USER", "STATE", "PASSWORD", "RULES")
			for _, user := range list.GetUsers() {
				u, err := acl.Parse(user.GetRules())
				if err != nil {
					t.row(acl.NameOf(user.GetRules()), "?", "?", err.Error())
					continue
				}
				password := passwordOf(u, list.GetDefaultPasswordFromFile())
				u.NoPass, u.Passwords = false, nil
				state, rules, _ := strings.Cut(u.Describe(), " ")
				t.row(u.Name, state, password, rules)
			}
			return t.print(a.out)
		}),
	}
}

// passwordOf says how one logs in as a user.
func passwordOf(u *acl.User, fromFile bool) string {
	words := map[bool]string{true: " in client-password"}[fromFile && u.Name == acl.DefaultUser]
	switch n := len(u.Passwords); {
	case u.NoPass:
		return "none needed"
	case n == 0:
		return "none is right"
	default:
		return fmt.Sprint(n) + words
	}
}

func (a *app) aclSet() *cobra.Command {
	var file string
	var stdin bool
	cmd := &cobra.Command{
		Use: "set [--password-file FILE | --password-stdin] [CLUSTER] USER [RULE]...", Short: "Change a user, or make it", Args: between(1, 2+acl.MaxModifiers),
		Long: `Change a user, or make it. The rules are those of Redis's ACL SETUSER: on, off,
~pattern, %R~pattern, &channel, +command, -@category, (selector), reset, …

A password must not be on the command line, where others can read it: give it in
a file or on the standard input, or as #SHA256 (!SHA256 removes one). It is added
to those that are valid; with the rule resetpass it is the only one.

The user default is that of connections that do not log in. Its password is the
one in the file client-password of the cluster's credentials, or none without
that file. As soon as a rule or one of the flags below sets its password, the
file is of no meaning any more, until ` + "`basaltctl acl delete CLUSTER default`" + `.

The command returns when every proxy obeys. Flags must stand in front of CLUSTER,
since rules begin with "-", too.`,
		Example: `  basaltctl acl set --password-file app.pw blue app on '~app:*' +@read +@write
  basaltctl acl set blue app -@dangerous '&news.*'
  basaltctl acl set blue app off`,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := a.within(cmd.Context(), operationTimeout)
			defer cancel()
			cluster, args, err := a.clusterOr(ctx, args)
			if err != nil {
				return err
			}
			rules, err := acl.Merge(args[1:])
			if err != nil {
				return usagef("%v", err)
			}
			for _, rule := range rules {
				if strings.HasPrefix(rule, ">") || strings.HasPrefix(rule, "<") {
					return usagef("a password must not be on the command line: use --password-file, --password-stdin, or # or ! and its SHA-256")
				}
			}
			password, given, err := readPassword(file, stdin)
			if err != nil {
				return err
			}
			if given {
				rules = append(rules, "#"+acl.HashOf(password))
			}
			request := &basaltv1.SetUserRequest{Cluster: cluster, User: []byte(args[0])}
			for _, rule := range rules {
				request.Modifiers = append(request.Modifiers, []byte(rule))
			}
			reply, err := call(ctx, a.users().SetUser, request)
			if err != nil {
				return err
			}
			if a.output == "json" {
				return a.printProto(reply)
			}
			return a.say("user %s of cluster %s is set; every proxy obeys since epoch %d", args[0], cluster, reply.GetEpoch())
		},
	}
	cmd.Flags().StringVar(&file, "password-file", "", "add the password on the first line of this `file`")
	cmd.Flags().BoolVar(&stdin, "password-stdin", false, "add the password on the first line of the standard input")
	cmd.Flags().SetInterspersed(false)
	return cmd
}

// readPassword reads the first line of a file or of the standard input.
func readPassword(file string, stdin bool) (password string, given bool, err error) {
	if file == "" && !stdin {
		return "", false, nil
	}
	var from io.Reader = os.Stdin
	if file != "" {
		if stdin {
			return "", false, usagef("give the password in a file or on the standard input, not both")
		}
		f, err := os.Open(file)
		if err != nil {
			return "", false, err
		}
		defer f.Close()
		from = f
	}
	line, err := bufio.NewReader(io.LimitReader(from, 4096)).ReadString('\n')
	if err != nil && err != io.EOF {
		return "", false, fmt.Errorf("read the password: %w", err)
	}
	if line = strings.TrimRight(line, "\r\n"); line == "" {
		return "", false, usagef("the password is empty: put it on the first line")
	}
	return line, true, nil
}

func (a *app) aclDelete() *cobra.Command {
	return &cobra.Command{
		Use: "delete [CLUSTER] USER...", Aliases: []string{"rm"}, Short: "Delete users; their connections end", Args: between(1, 1+acl.MaxModifiers),
		Long: `Delete users; their connections end. The user default cannot be deleted: it
becomes what it is at first, with all rights and the password in the file
client-password.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := a.within(cmd.Context(), operationTimeout)
			defer cancel()
			cluster, args, err := a.clusterOr(ctx, args)
			if err != nil {
				return err
			}
			request := &basaltv1.DeleteUsersRequest{Cluster: cluster, ResetDefault: true}
			for _, name := range args {
				request.Users = append(request.Users, []byte(name))
			}
			reply, err := call(ctx, a.users().DeleteUsers, request)
			if err != nil {
				return err
			}
			if a.output == "json" {
				return a.printProto(reply)
			}
			return a.say("%d of %d users deleted; every proxy obeys since epoch %d", reply.GetDeleted(), len(args), reply.GetEpoch())
		},
	}
}
