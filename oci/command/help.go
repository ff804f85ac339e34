package command

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// verbs are all words of the command line, in the order that help shows them.
func verbs() []*verb {
	return []*verb{
		{"checkpoint", "<container-id>", "save a running container to files, by criu", 1, 1, (*app).checkpoint},
		{"create", "<container-id>", "make a container from a bundle", 1, 1, (*app).create},
		{"delete", "<container-id>", "remove a container and all that belongs to it", 1, 1, (*app).delete},
		{"events", "<container-id>", "show a container's statistics, and when it runs out of memory", 1, 1, (*app).events},
		{"exec", "<container-id> <command> [command options]  || -p process.json <container-id>", "run a further process in a container", 1, -1, (*app).exec},
		{"kill", "<container-id> [signal]", "send a signal (default: SIGTERM) to a container's init", 1, 2, (*app).kill},
		{"list", "", "list the containers below the root", 0, 0, (*app).list},
		{"pause", "<container-id>", "stop all processes of a container where they are", 1, 1, (*app).pause},
		{"ps", "<container-id> [ps options]", "list the processes of a container", 1, -1, (*app).ps},
		{"restore", "<container-id>", "bring a container back that checkpoint has saved", 1, 1, (*app).restore},
		{"resume", "<container-id>", "let a paused container go on", 1, 1, (*app).resume},
		{"run", "<container-id>", "create a container, start it, and wait for it", 1, 1, (*app).runContainer},
		{"spec", "", "write an example config.json", 0, 0, (*app).spec},
		{"start", "<container-id>", "run the program of a container that create has made", 1, 1, (*app).start},
		{"state", "<container-id>", "print the state of a container", 1, 1, (*app).state},
		{"update", "<container-id>", "change the limits of a container", 1, 1, (*app).update},
		{"features", "", "print what this runtime can do", 0, 0, (*app).features},
	}
}

func find(name string) *verb {
	for _, v := range verbs() {
		if v.name == name {
			return v
		}
	}
	return nil
}

func (a *app) overview(w io.Writer, f flagSet) {
	fmt.Fprint(w, "NAME:\n   gantry-oci - OCI runtime with the command line of runc\n\nUSAGE:\n   gantry-oci [global options] command [command options] [arguments...]\n\n")
	fmt.Fprintf(w, "VERSION:\n   %s\n\nCOMMANDS:\n", a.info.Version)
	t := tabwriter.NewWriter(w, 1, 8, 2, ' ', 0)
	for _, v := range verbs() {
		fmt.Fprintf(t, "   %s\t%s\n", v.name, v.usage)
	}
	fmt.Fprintf(t, "   help, h\tshow the commands, or help for one of them\n")
	t.Flush()
	fmt.Fprint(w, "\nGLOBAL OPTIONS:\n")
	f.print(w)
}

func (a *app) help(w io.Writer) {
	fmt.Fprintf(w, "NAME:\n   gantry-oci %s - %s\n\nUSAGE:\n   gantry-oci %s [command options] %s\n\nOPTIONS:\n", a.verb.name, a.verb.usage, a.verb.name, a.verb.args)
	a.print(w)
}

func (f flagSet) print(w io.Writer) {
	t := tabwriter.NewWriter(w, 1, 8, 2, ' ', 0)
	line := func(names, kind, usage string) {
		if kind != "" {
			kind = " " + kind
		}
		fmt.Fprintf(t, "   %s%s\t%s\n", names, kind, usage)
	}
	for _, o := range f.flags {
		if o.hidden {
			continue
		}
		names := "--" + o.name
		if o.short != "" {
			names += ", -" + o.short
		}
		line(names, o.kind, o.usage)
	}
	line("--help, -h", "", "show help")
	t.Flush()
}
