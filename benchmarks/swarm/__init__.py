"""A swarm over a code tree, with introspection off and on; and claims under thousands of agents and kills."""
