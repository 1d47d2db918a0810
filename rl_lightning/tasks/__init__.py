"""reasoning-gym, tamed: the only room that imports it. Problems by number, prompts, answers, the catalogue."""
