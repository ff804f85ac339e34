package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"
)

// runFunc does a command's work once its flags are parsed.
type runFunc func(ctx context.Context, args []string) error

// command is one word of the command line: a group of others (subs) or something that runs (setup).
type command struct {
	name              string
	hidden            []string // other words for it that the help does not list
	aliases           string   // the help's line of all its spellings, without the program's name; comma separated
	use               string   // arguments, for the usage line
	short             string   // one line that says what it does
	min, max          int      // number of arguments; max -1: any
	firstArgEndsFlags bool     // what follows the first argument belongs to the container's command
	setup             func(a *app, fs *pflag.FlagSet) runFunc
	subs              func() []*command
	absent            string // why the command is not there yet
	section           string // of the top-level help; "" hides it there
}

const (
	sectionCommon     = "Common Commands"
	sectionManagement = "Management Commands"
	sectionCommands   = "Commands"
)

func (c *command) called(word string) bool {
	if c.name == word {
		return true
	}
	for _, h := range c.hidden {
		if h == word {
			return true
		}
	}
	return false
}

func (c *command) usageLine(path string) string {
	switch {
	case c.name == "":
		return path + " [OPTIONS] COMMAND"
	case c.subs != nil:
		return path + " COMMAND"
	case c.use == "":
		return path
	}
	return path + " " + strings.ReplaceAll(c.use, "{cp}", path)
}

// as returns c under another name and section, for commands that exist both in a group and at the top.
func (c *command) as(name, section string) *command {
	d := *c
	d.name, d.section = name, section
	return &d
}

// in returns c in a section of the top-level help.
func (c *command) in(section string) *command { return c.as(c.name, section) }

func rootCommand() *command {
	return &command{short: "A self-sufficient runtime for containers", subs: topCommands}
}

func topCommands() []*command {
	later := func(name, short, section, why string) *command {
		return &command{name: name, short: short, section: section, absent: why}
	}
	const (
		noBuild = "this engine has the classic builder only: 'build' is there, BuildKit is not."
		noSwarm = "this engine runs containers on one machine; it has no swarm mode."
	)
	return []*command{
		runCommand().in(sectionCommon),
		execCommand().in(sectionCommon),
		psCommand().as("ps", sectionCommon),
		buildCommand().in(sectionCommon),
		pullCommand().in(sectionCommon),
		pushCommand().in(sectionCommon),
		imagesCommand().as("images", sectionCommon),
		loginCommand().in(sectionCommon),
		logoutCommand().in(sectionCommon),
		searchCommand().in(sectionCommon),
		versionCommand().in(sectionCommon),
		infoCommand().in(sectionCommon),
		pingCommand().in(""),

		{name: "container", short: "Manage containers", section: sectionManagement, subs: containerCommands},
		contextCommand().in(sectionManagement),
		{name: "image", short: "Manage images", section: sectionManagement, subs: imageCommands},
		{name: "network", short: "Manage networks", section: sectionManagement, subs: networkCommands},
		{name: "system", short: "Manage Gantry", section: sectionManagement, subs: systemCommands},
		{name: "volume", short: "Manage volumes", section: sectionManagement, subs: volumeCommands},
		later("builder", "Manage builds", "", noBuild),
		later("buildx", "Docker Buildx", "", noBuild),
		later("compose", "Docker Compose", "", "it comes later; docker's own compose plugin works against gantryd's socket."),
		later("checkpoint", "Manage checkpoints", "", "this engine cannot checkpoint containers."),
		later("manifest", "Manage image manifests and manifest lists", "", "it comes with the builder."),
		later("plugin", "Manage plugins", "", "this engine has no managed plugins."),
		later("trust", "Manage trust on images", "", "this engine does not sign images."),
		later("config", "Manage Swarm configs", "", noSwarm),
		later("node", "Manage Swarm nodes", "", noSwarm),
		later("secret", "Manage Swarm secrets", "", noSwarm),
		later("service", "Manage Swarm services", "", noSwarm),
		later("stack", "Manage Swarm stacks", "", noSwarm),
		later("swarm", "Manage Swarm", "", noSwarm),

		attachCommand().in(sectionCommands),
		commitCommand().in(sectionCommands),
		cpCommand().in(sectionCommands),
		createCommand().in(sectionCommands),
		diffCommand().in(sectionCommands),
		eventsCommand().in(sectionCommands),
		exportCommand().in(sectionCommands),
		historyCommand().in(sectionCommands),
		importCommand().in(sectionCommands),
		inspectCommand().in(sectionCommands),
		killCommand().in(sectionCommands),
		loadCommand().in(sectionCommands),
		logsCommand().in(sectionCommands),
		pauseCommand().in(sectionCommands),
		portCommand().in(sectionCommands),
		renameCommand().in(sectionCommands),
		restartCommand().in(sectionCommands),
		rmCommand().in(sectionCommands),
		rmiCommand().as("rmi", sectionCommands),
		saveCommand().in(sectionCommands),
		startCommand().in(sectionCommands),
		statsCommand().in(sectionCommands),
		stopCommand().in(sectionCommands),
		tagCommand().in(sectionCommands),
		topCommand().in(sectionCommands),
		unpauseCommand().in(sectionCommands),
		updateCommand().in(sectionCommands),
		waitCommand().in(sectionCommands),
	}
}

func containerCommands() []*command {
	return []*command{
		attachCommand(), commitCommand(), cpCommand(), createCommand(), diffCommand(), execCommand(), exportCommand(),
		containerInspectCommand(), killCommand(), logsCommand(), psCommand(), pauseCommand(), portCommand(),
		containerPruneCommand(), renameCommand(), restartCommand(), rmCommand(), runCommand(), startCommand(), statsCommand(),
		stopCommand(), topCommand(), unpauseCommand(), updateCommand(), waitCommand(),
	}
}

func imageCommands() []*command {
	return []*command{
		buildCommand(), historyCommand(), importCommand(), imageInspectCommand(), loadCommand(), imagesCommand(), imagePruneCommand(),
		imageCopyCommand(), imageDiffCommand(), pullCommand(), pushCommand(), rmiCommand(), saveCommand(), imageSettleCommand(), imageSquashCommand(), tagCommand(), imageTreeCommand(), imageVerifyCommand(),
	}
}

func networkCommands() []*command {
	return []*command{
		networkConnectCommand(), networkCreateCommand(), networkDisconnectCommand(), networkInspectCommand(), networkLsCommand(),
		networkPruneCommand(), networkRmCommand(),
	}
}

func volumeCommands() []*command {
	return []*command{
		volumeCreateCommand(), volumeInspectCommand(), volumeLsCommand(), volumePruneCommand(), volumeRmCommand(),
		{name: "update", short: "Update a volume (cluster volumes only)", absent: "this engine has no cluster volumes."},
	}
}

func systemCommands() []*command {
	return []*command{dfCommand(), eventsCommand(), fsckCommand(), infoCommand(), pingCommand(), systemPruneCommand()}
}

// usage prints a command's help. fs has the flags to show, or is nil.
func (a *app) usage(w io.Writer, c *command, path string, fs *pflag.FlagSet) {
	fmt.Fprintf(w, "Usage:  %s\n\n%s\n", c.usageLine(path), c.short)
	if c.aliases != "" {
		words := strings.Split(c.aliases, ", ")
		for i := range words {
			words[i] = a.name + " " + words[i]
		}
		fmt.Fprintf(w, "\nAliases:\n  %s\n", strings.Join(words, ", "))
	}
	if c.name == "" {
		a.sections(w)
		fmt.Fprintf(w, "\nGlobal Options:\n%s", fs.FlagUsagesWrapped(min(a.width(), 80)-1))
		fmt.Fprintf(w, "\nRun '%s COMMAND --help' for more information on a command.\n", path)
		return
	}
	if fs != nil && fs.HasAvailableFlags() {
		fmt.Fprintf(w, "\nOptions:\n%s", fs.FlagUsagesWrapped(a.width()-1))
	}
	if c.subs != nil {
		fmt.Fprint(w, "\nCommands:\n")
		list(w, c.subs())
		fmt.Fprintf(w, "\nRun '%s COMMAND --help' for more information on a command.\n", path)
	}
}

// sections prints the commands of the top level.
func (a *app) sections(w io.Writer) {
	all := topCommands()
	for _, s := range []string{sectionCommon, sectionManagement, sectionCommands} {
		fmt.Fprintf(w, "\n%s:\n", s)
		var in []*command
		for _, c := range all {
			if c.section == s {
				in = append(in, c)
			}
		}
		list(w, in)
	}
}

func list(w io.Writer, cmds []*command) {
	room := 11
	for _, c := range cmds {
		room = max(room, len(c.name))
	}
	for _, c := range cmds {
		if c.absent == "" || c.section != "" {
			fmt.Fprintf(w, "  %-*s %s\n", room, c.name, c.short)
		}
	}
}
