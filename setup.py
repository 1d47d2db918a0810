"""What setup.cfg cannot say: configs/, which is not below rl_lightning/, is installed as the directory rl_lightning/configs."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["rl_lightning*"]), "rl_lightning.configs"])
